//! Reading values: a cursor over one frame or message that can't leave it, nest too deep, or make too much of too little.
//!
//! ```text
//!   | constructor | data |     compound:  | size | count | value … |    the cursor's end is drawn in to the size while inside
//! ```
//!
//! Invariants: nothing is allocated in proportion to a count or length before as many bytes are known to be there; strings
//! and binaries are slices of the frame; the depth and the number of values are those of the whole frame.

use bytes::Bytes;

use super::{Fault, Limits, code};
use crate::text::{Symbol, Text};
use crate::value::{Array, Float32, Float64, Kind, Timestamp, Value};

/// A cursor over the bytes of a frame or message.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
    limits: Limits,
    depth: usize,
    values: usize,
}

/// The head of a compound value: how many values it has, and what to go back to after them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compound {
    pub(crate) count: u32,
    outer_end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a Bytes, limits: Limits) -> Self {
        Self {
            bytes,
            at: 0,
            end: bytes.len(),
            limits,
            depth: 0,
            values: 0,
        }
    }

    /// How many bytes are left before the end of what is being read.
    pub(crate) const fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// What is left, as a slice.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..self.end);
        self.at = self.end;
        rest
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        let [byte] = self.chunk()?;
        Ok(byte)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let left = self.bytes.get(self.at..self.end).unwrap_or_default();
        let chunk = *left.first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.at += N;
        Ok(chunk)
    }

    /// A length of one byte (0xa_) or four (0xb_), and that many bytes.
    fn variable(&mut self, wide: bool) -> Result<Bytes, Fault> {
        let length = self.number(wide)?;
        let length = usize::try_from(length).map_err(|_| Fault::Truncated)?;
        if self.left() < length {
            return Err(Fault::Truncated);
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    fn number(&mut self, wide: bool) -> Result<u32, Fault> {
        if wide {
            self.chunk().map(u32::from_be_bytes)
        } else {
            self.byte().map(u32::from)
        }
    }

    pub(crate) fn binary(&mut self, code: u8) -> Result<Bytes, Fault> {
        match code {
            code::BINARY8 => self.variable(false),
            code::BINARY32 => self.variable(true),
            _ => Err(wrong("binary", code)),
        }
    }

    /// A string; a symbol is one too.
    pub(crate) fn text(&mut self, code: u8) -> Result<Text, Fault> {
        let bytes = match code {
            code::STRING8 | code::SYMBOL8 => self.variable(false)?,
            code::STRING32 | code::SYMBOL32 => self.variable(true)?,
            _ => return Err(wrong("string", code)),
        };
        Text::try_from(bytes).map_err(|_| Fault::NotUtf8)
    }

    /// A symbol; clients send strings in their place, which are taken when they are ASCII.
    pub(crate) fn symbol(&mut self, code: u8) -> Result<Symbol, Fault> {
        let bytes = match code {
            code::SYMBOL8 | code::STRING8 => self.variable(false)?,
            code::SYMBOL32 | code::STRING32 => self.variable(true)?,
            _ => return Err(wrong("symbol", code)),
        };
        Symbol::try_from(bytes).map_err(|_| Fault::NotAscii)
    }

    pub(crate) fn boolean(&mut self, code: u8) -> Result<bool, Fault> {
        match code {
            code::TRUE => Ok(true),
            code::FALSE => Ok(false),
            code::BOOLEAN => match self.byte()? {
                0 => Ok(false),
                1 => Ok(true),
                byte => Err(Fault::NotABoolean(byte)),
            },
            _ => Err(wrong("boolean", code)),
        }
    }

    pub(crate) fn ubyte(&mut self, code: u8) -> Result<u8, Fault> {
        match code {
            code::UBYTE => self.byte(),
            _ => Err(wrong("ubyte", code)),
        }
    }

    pub(crate) fn ushort(&mut self, code: u8) -> Result<u16, Fault> {
        match code {
            code::USHORT => self.chunk().map(u16::from_be_bytes),
            _ => Err(wrong("ushort", code)),
        }
    }

    pub(crate) fn uint(&mut self, code: u8) -> Result<u32, Fault> {
        match code {
            code::UINT0 => Ok(0),
            code::SMALL_UINT => self.byte().map(u32::from),
            code::UINT => self.chunk().map(u32::from_be_bytes),
            _ => Err(wrong("uint", code)),
        }
    }

    pub(crate) fn ulong(&mut self, code: u8) -> Result<u64, Fault> {
        match code {
            code::ULONG0 => Ok(0),
            code::SMALL_ULONG => self.byte().map(u64::from),
            code::ULONG => self.chunk().map(u64::from_be_bytes),
            _ => Err(wrong("ulong", code)),
        }
    }

    pub(crate) fn timestamp(&mut self, code: u8) -> Result<Timestamp, Fault> {
        match code {
            code::TIMESTAMP => Ok(Timestamp(i64::from_be_bytes(self.chunk()?))),
            _ => Err(wrong("timestamp", code)),
        }
    }

    pub(crate) fn uuid(&mut self, code: u8) -> Result<[u8; 16], Fault> {
        match code {
            code::UUID => self.chunk(),
            _ => Err(wrong("uuid", code)),
        }
    }

    /// A value with its constructor.
    pub(crate) fn value(&mut self) -> Result<Value, Fault> {
        let code = self.byte()?;
        self.value_of(code)
    }

    /// A value whose constructor was read.
    pub(crate) fn value_of(&mut self, code: u8) -> Result<Value, Fault> {
        let kind = code::kind(code).ok_or(Fault::UnknownConstructor(code))?;
        Ok(match kind {
            Kind::Null => Value::Null,
            Kind::Boolean => Value::Boolean(self.boolean(code)?),
            Kind::Ubyte => Value::Ubyte(self.byte()?),
            Kind::Ushort => Value::Ushort(self.ushort(code)?),
            Kind::Uint => Value::Uint(self.uint(code)?),
            Kind::Ulong => Value::Ulong(self.ulong(code)?),
            Kind::Byte => Value::Byte(i8::from_be_bytes(self.chunk()?)),
            Kind::Short => Value::Short(i16::from_be_bytes(self.chunk()?)),
            Kind::Int if code == code::SMALL_INT => Value::Int(i32::from(i8::from_be_bytes(self.chunk()?))),
            Kind::Int => Value::Int(i32::from_be_bytes(self.chunk()?)),
            Kind::Long if code == code::SMALL_LONG => Value::Long(i64::from(i8::from_be_bytes(self.chunk()?))),
            Kind::Long => Value::Long(i64::from_be_bytes(self.chunk()?)),
            Kind::Float => Value::Float(Float32::from(f32::from_be_bytes(self.chunk()?))),
            Kind::Double => Value::Double(Float64::from(f64::from_be_bytes(self.chunk()?))),
            Kind::Decimal32 => Value::Decimal32(self.chunk()?),
            Kind::Decimal64 => Value::Decimal64(self.chunk()?),
            Kind::Decimal128 => Value::Decimal128(self.chunk()?),
            Kind::Char => self.char().map(Value::Char)?,
            Kind::Timestamp => Value::Timestamp(self.timestamp(code)?),
            Kind::Uuid => Value::Uuid(self.uuid(code)?),
            Kind::Binary => Value::Binary(self.binary(code)?),
            Kind::String => Value::String(self.text(code)?),
            Kind::Symbol => Value::Symbol(self.symbol(code)?),
            Kind::List => Value::List(self.list(code)?),
            Kind::Map => Value::Map(self.pairs(code, Self::value)?),
            Kind::Array => Value::Array(self.array(code)?),
            Kind::Described => self.described()?,
        })
    }

    fn char(&mut self) -> Result<char, Fault> {
        let number = u32::from_be_bytes(self.chunk()?);
        char::from_u32(number).ok_or(Fault::NotAChar(number))
    }

    fn described(&mut self) -> Result<Value, Fault> {
        self.deeper()?;
        self.count_values(1)?;
        let descriptor = self.value()?;
        let value = self.value()?;
        self.depth -= 1;
        Ok(Value::described(descriptor, value))
    }

    pub(crate) fn list(&mut self, code: u8) -> Result<Vec<Value>, Fault> {
        let compound = self.enter_list(code)?;
        let mut items = Vec::with_capacity(self.room_for(compound.count));
        for _ in 0..compound.count {
            items.push(self.value()?);
        }
        self.leave(compound)?;
        Ok(items)
    }

    /// A map, with keys as `key` reads them.
    pub(crate) fn pairs<K>(
        &mut self,
        code: u8,
        key: impl Fn(&mut Self) -> Result<K, Fault>,
    ) -> Result<Vec<(K, Value)>, Fault> {
        let compound = match code {
            code::MAP8 => self.enter(false)?,
            code::MAP32 => self.enter(true)?,
            _ => return Err(wrong("map", code)),
        };
        if !compound.count.is_multiple_of(2) {
            return Err(Fault::OddMap(compound.count));
        }
        let mut pairs = Vec::with_capacity(self.room_for(compound.count / 2));
        for _ in 0..compound.count / 2 {
            pairs.push((key(self)?, self.value()?));
        }
        self.leave(compound)?;
        Ok(pairs)
    }

    pub(crate) fn array(&mut self, code: u8) -> Result<Array, Fault> {
        let compound = match code {
            code::ARRAY8 => self.enter(false)?,
            code::ARRAY32 => self.enter(true)?,
            _ => return Err(wrong("array", code)),
        };
        if compound.count == 0 && self.left() == 0 {
            // Some leave the constructor out when there is nothing to construct.
            self.leave(compound)?;
            return Ok(Array::new(Kind::Null, None, Vec::new()).expect("an array of nothing holds no wrong kind"));
        }
        let mut item_code = self.byte()?;
        let mut descriptor = None;
        if item_code == code::DESCRIBED {
            descriptor = Some(self.value()?);
            item_code = self.byte()?;
            if item_code == code::DESCRIBED {
                return Err(Fault::DescribedDescriptor);
            }
        }
        let kind = code::kind(item_code).ok_or(Fault::UnknownConstructor(item_code))?;
        let mut items = Vec::with_capacity(self.room_for(compound.count));
        for _ in 0..compound.count {
            items.push(self.value_of(item_code)?);
        }
        self.leave(compound)?;
        Ok(Array::new(kind, descriptor, items).expect("one constructor makes items of one kind"))
    }

    pub(crate) fn enter_list(&mut self, code: u8) -> Result<Compound, Fault> {
        match code {
            code::LIST0 => {
                self.deeper()?;
                let outer_end = self.end;
                self.end = self.at;
                Ok(Compound { count: 0, outer_end })
            }
            code::LIST8 => self.enter(false),
            code::LIST32 => self.enter(true),
            _ => Err(wrong("list", code)),
        }
    }

    /// Reads size and count, and draws the end in.
    fn enter(&mut self, wide: bool) -> Result<Compound, Fault> {
        self.deeper()?;
        let size = usize::try_from(self.number(wide)?).map_err(|_| Fault::Truncated)?;
        if self.left() < size {
            return Err(Fault::Truncated);
        }
        let outer_end = self.end;
        self.end = self.at + size;
        let count = self.number(wide)?;
        // At once, since the items of an array may have no bytes, and lists in lists claim room each.
        self.count_values(usize::try_from(count).unwrap_or(usize::MAX))?;
        Ok(Compound { count, outer_end })
    }

    /// Goes on after a compound.
    pub(crate) fn leave(&mut self, compound: Compound) -> Result<(), Fault> {
        if self.at != self.end {
            return Err(Fault::SizeMismatch);
        }
        self.end = compound.outer_end;
        self.depth -= 1;
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return Err(Fault::TooDeep(self.limits.depth));
        }
        Ok(())
    }

    fn count_values(&mut self, count: usize) -> Result<(), Fault> {
        self.values = self.values.saturating_add(count);
        if self.values > self.limits.values {
            return Err(Fault::TooManyValues(self.limits.values));
        }
        Ok(())
    }

    /// How many items to make room for: no more than there are bytes, whatever the count says.
    fn room_for(&self, count: u32) -> usize {
        usize::try_from(count).unwrap_or(usize::MAX).min(self.left())
    }
}

/// A constructor of another type than the one that may stand here.
pub(crate) fn wrong(expected: &'static str, code: u8) -> Fault {
    code::kind(code).map_or(Fault::UnknownConstructor(code), |found| Fault::WrongType {
        expected,
        found,
    })
}
