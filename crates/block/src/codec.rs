//! The little codec of every variable-width structure: big-endian, length-prefixed, strict.
//!
//! One value has one encoding. A decoder refuses trailing bytes, unknown tags and lengths beyond the input, and never
//! allocates more than a small multiple of the input it was given.

use crate::error::{BlockError, Result};

/// Reads a byte slice front to back; every read is checked.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`; `what` names the object in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error for bytes that cannot be what they should be.
    pub fn malformed(&self) -> BlockError {
        BlockError::Malformed { what: self.what }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(BlockError::Malformed { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(BlockError::Malformed { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    /// One decoded value.
    pub fn value<T: Field>(&mut self) -> Result<T> {
        T::take(self)
    }

    /// `len` bytes that must be zero (reserved space and padding).
    pub fn zeros(&mut self, len: usize) -> Result<()> {
        if self.take(len)?.iter().all(|b| *b == 0) { Ok(()) } else { Err(self.malformed()) }
    }

    /// Everything left must be zero.
    pub fn zeros_to_end(mut self) -> Result<()> {
        let len = self.rest.len();
        self.zeros(len)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}

/// A value with exactly one encoding.
pub trait Field: Sized {
    /// Fewest bytes an encoding takes; bounds allocation when a list names its length.
    const MIN_LEN: usize;
    /// Appends the encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads one value.
    fn take(reader: &mut Reader<'_>) -> Result<Self>;
}

/// The encoding of one value.
pub fn encode<T: Field>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// Decodes exactly one value; `what` names it in errors.
pub fn decode<T: Field>(bytes: &[u8], what: &'static str) -> Result<T> {
    let mut reader = Reader::new(bytes, what);
    let value = T::take(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Length of a list or byte string as it is written; saturates far above every limit of the format.
pub(crate) fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

macro_rules! number {
    ($($int:ty),*) => {$(
        impl Field for $int {
            const MIN_LEN: usize = size_of::<$int>();
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self> {
                Ok(Self::from_be_bytes(reader.array()?))
            }
        }
    )*};
}
number!(u8, u16, u32, u64);

impl Field for bool {
    const MIN_LEN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(reader.malformed()),
        }
    }
}

impl<const N: usize> Field for [u8; N] {
    const MIN_LEN: usize = N;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array()
    }
}

impl Field for String {
    const MIN_LEN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len()).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let len = u32::take(reader)? as usize;
        let bytes = reader.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| reader.malformed())
    }
}

impl<T: Field> Field for Option<T> {
    const MIN_LEN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        if bool::take(reader)? { Ok(Some(T::take(reader)?)) } else { Ok(None) }
    }
}

impl<T: Field> Field for Vec<T> {
    const MIN_LEN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        length(self.len()).put(out);
        for value in self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let count = u32::take(reader)? as usize;
        let most = reader.remaining() / T::MIN_LEN.max(1);
        if count > most {
            return Err(reader.malformed());
        }
        let mut list = Self::with_capacity(count);
        for _ in 0..count {
            list.push(T::take(reader)?);
        }
        Ok(list)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    const MIN_LEN: usize = A::MIN_LEN + B::MIN_LEN;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok((A::take(reader)?, B::take(reader)?))
    }
}

/// Defines a struct whose encoding is its fields in order.
macro_rules! fields {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $crate::codec::Field for $name {
            const MIN_LEN: usize = 0 $(+ <$ty as $crate::codec::Field>::MIN_LEN)*;
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::codec::Field::put(&self.$field, out);)*
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self { $($field: $crate::codec::Field::take(reader)?,)* })
            }
        }
    };
}
pub(crate) use fields;

/// The encoding of a newtype over a fixed array: its bytes, as `$bytes` gives them and `from_bytes` takes them.
macro_rules! array_field {
    ($name:ident, $len:literal, $bytes:ident) => {
        impl $crate::codec::Field for $name {
            const MIN_LEN: usize = $len;
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.$bytes());
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self::from_bytes(reader.array()?))
            }
        }
    };
}
pub(crate) use array_field;

/// Defines a one-byte enumeration; unknown values are refused.
macro_rules! tags {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// The byte in the format.
            pub const fn to_u8(self) -> u8 {
                self as u8
            }
            /// The variant for a byte of the format, if it has one.
            pub const fn from_u8(byte: u8) -> Option<Self> {
                match byte {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::codec::Field for $name {
            const MIN_LEN: usize = 1;
            fn put(&self, out: &mut Vec<u8>) {
                out.push(self.to_u8());
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> $crate::error::Result<Self> {
                let byte = <u8 as $crate::codec::Field>::take(reader)?;
                Self::from_u8(byte).ok_or_else(|| reader.malformed())
            }
        }
    };
}
pub(crate) use tags;
