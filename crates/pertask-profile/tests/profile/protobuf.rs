//! Protobuf by hand: files that our writer would not write.

/// A field that is a number.
pub fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

/// A field that is bytes, a text or a message.
pub fn bytes(tag: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(tag << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// Numbers without keys.
pub fn packed(tag: u64, values: &[u64]) -> Vec<u8> {
    bytes(tag, values.iter().flat_map(|value| varint(*value)).collect::<Vec<_>>())
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A pprof file made field by field, so that it can be of any program.
pub struct File {
    strings: Vec<String>,
    bytes: Vec<u8>,
    functions: u64,
}

/// The value of a label.
pub enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

impl File {
    /// A file whose samples have values of these types, such as `cpu/nanoseconds`.
    pub fn of(types: &[&str]) -> Self {
        let mut file = Self { strings: vec![String::new()], bytes: Vec::new(), functions: 0 };
        for of in types {
            let of = file.value_type(of);
            file.bytes.extend(bytes(1, of));
        }
        file
    }

    /// A file of counts and nanoseconds of CPU time.
    pub fn usual() -> Self {
        Self::of(&["samples/count", "cpu/nanoseconds"])
    }

    pub fn period(mut self, of: &str, period: i64) -> Self {
        let of = self.value_type(of);
        self.bytes.extend([bytes(11, of), number(12, period as u64)].concat());
        self
    }

    /// Adds a location with these functions, the innermost first, and returns its id.
    pub fn location(&mut self, functions: &[&str]) -> u64 {
        self.location_in(0, functions)
    }

    pub fn location_in(&mut self, mapping: u64, functions: &[&str]) -> u64 {
        let mut location = number(2, mapping);
        for name in functions {
            self.functions += 1;
            let function = [number(1, self.functions), number(2, self.string(name))].concat();
            self.bytes.extend(bytes(5, function));
            location.extend(bytes(4, number(1, self.functions)));
        }
        // A location's id is that of its last function.
        let id = self.functions;
        self.bytes.extend(bytes(4, [number(1, id), location].concat()));
        id
    }

    pub fn sample(&mut self, stack: &[u64], values: &[i64], labels: &[(&str, Value<'_>)]) {
        let values: Vec<_> = values.iter().map(|value| *value as u64).collect();
        let mut sample = [packed(1, stack), packed(2, &values)].concat();
        for (key, value) in labels {
            let key = number(1, self.string(key));
            let value = match value {
                Value::Text(text) => number(2, self.string(text)),
                Value::Number(value) => number(3, *value),
            };
            sample.extend(bytes(3, [key, value].concat()));
        }
        self.bytes.extend(bytes(2, sample));
    }

    /// Adds a field that is the number of a text.
    pub fn text(&mut self, tag: u64, text: &str) {
        let text = self.string(text);
        self.bytes.extend(number(tag, text));
    }

    pub fn field(&mut self, field: Vec<u8>) {
        self.bytes.extend(field);
    }

    pub fn written(&self) -> Vec<u8> {
        let strings = self.strings.iter().flat_map(|string| bytes(6, string));
        self.bytes.iter().copied().chain(strings).collect()
    }

    fn value_type(&mut self, of: &str) -> Vec<u8> {
        let (kind, unit) = of.split_once('/').expect("a kind and a unit");
        [number(1, self.string(kind)), number(2, self.string(unit))].concat()
    }

    fn string(&mut self, text: &str) -> u64 {
        let at = self.strings.iter().position(|string| string == text);
        let at = at.unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        at as u64
    }
}
