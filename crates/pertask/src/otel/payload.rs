//! The content of the process context: the message `ProcessContext` of OpenTelemetry's protocol.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProcessContext {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 5")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<AnyValue>,
}

impl From<&str> for AnyValue {
    fn from(text: &str) -> Self {
        Self { value: Some(Value::String(text.to_owned())) }
    }
}

impl KeyValue {
    pub(super) fn new(key: &str, value: impl Into<AnyValue>) -> Self {
        Self { key: key.to_owned(), value: Some(value.into()) }
    }
}

impl<'a> FromIterator<&'a str> for AnyValue {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let values = texts.into_iter().map(Self::from).collect();
        Self { value: Some(Value::Array(ArrayValue { values })) }
    }
}
