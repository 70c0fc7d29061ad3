//! Protobuf's wire form: tags, varints, lengths. The writer works backwards, so that lengths are known when written.

use super::ProtobufError;

/// A field's value as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// Upstream has no such field; passed over.
    Fixed32,
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// The wire type's number.
    pub(super) fn wire_type(self) -> u8 {
        match self {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32 => 5,
        }
    }
}

/// Reads field after field of a message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                if i == 9 && *byte > 1 {
                    return Err(ProtobufError::Overflow);
                }
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { ProtobufError::End } else { ProtobufError::Overflow })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(length).ok().filter(|n| *n <= self.0.len()).ok_or(ProtobufError::End)?;
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        Ok(head)
    }

    /// The next field's number and value, `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire_type = (tag & 7) as u8;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(ProtobufError::Tag(tag >> 3, wire_type))?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken"))),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed32)?,
            other => return Err(ProtobufError::Tag(tag >> 3, other)),
        };
        Ok(Some((number, value)))
    }
}

/// Writes a message from its last byte to its first.
pub(super) struct Writer {
    /// The message is at its end.
    bytes: Vec<u8>,
    /// Where the message begins so far.
    start: usize,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: vec![0; bytes], start: bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }

    /// Room for `count` more bytes before the message.
    #[inline]
    fn before(&mut self, count: usize) -> &mut [u8] {
        if self.start < count {
            self.grow(count);
        }
        let end = self.start;
        self.start -= count;
        &mut self.bytes[self.start..end]
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let (old, more) = (self.bytes.len(), self.bytes.len().max(count));
        self.bytes.resize(old + more, 0);
        self.bytes.copy_within(self.start..old, self.start + more);
        self.start += more;
    }

    #[inline]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.before(bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        if value < 0x80 {
            self.before(1)[0] = value as u8;
            return;
        }
        let mut text = [0; 10];
        let mut length = 0;
        while value >= 0x80 {
            text[length] = value as u8 | 0x80;
            value >>= 7;
            length += 1;
        }
        text[length] = value as u8;
        self.raw(&text[..=length]);
    }

    fn tag(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire_type));
    }

    pub(super) fn varint_field(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, 0);
    }

    pub(super) fn fixed64_field(&mut self, number: u32, value: u64) {
        self.raw(&value.to_le_bytes());
        self.tag(number, 1);
    }

    #[inline]
    pub(super) fn bytes_field(&mut self, number: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.tag(number, 2);
    }

    /// Puts length and tag before what was written since `mark`.
    pub(super) fn close_message(&mut self, number: u32, mark: usize) {
        self.varint((self.len() - mark) as u64);
        self.tag(number, 2);
    }
}
