//! Reads the fields of a protobuf message one by one, so that a reader can stop before it holds too much.

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A value of a fixed size, which pprof does not use.
    Fixed,
}

/// The remaining fields of a message. After an error there are none.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Field<'a>), &'static str> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.bytes(8).map(|_| Field::Fixed)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.bytes(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => self.bytes(4).map(|_| Field::Fixed)?,
            _ => return Err("a field has a type that protobuf does not have"),
        };
        Ok((key >> 3, field))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (bytes, rest) =
            self.0.split_at_checked(len).ok_or("a field is longer than the rest of the file")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("a number has no end")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits")
    }
}
