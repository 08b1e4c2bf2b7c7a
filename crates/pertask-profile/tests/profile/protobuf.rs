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
