//! Writing values: each in the narrowest form that its type has.
//!
//! Compounds are written with sizes of one byte and moved apart when they turn out longer, so that nothing is measured
//! twice.

use bytes::{BufMut, Bytes, BytesMut};

use super::code;
use crate::value::{Array, Kind, Value};

/// Appends a value with its constructor.
pub(crate) fn value(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Null => null(out),
        Value::Boolean(value) => boolean(*value, out),
        Value::Ubyte(number) => out.put_slice(&[code::UBYTE, *number]),
        Value::Ushort(number) => ushort(*number, out),
        Value::Uint(number) => uint(*number, out),
        Value::Ulong(number) => ulong(*number, out),
        Value::Int(number) => match i8::try_from(*number) {
            Ok(small) => {
                out.put_u8(code::SMALL_INT);
                out.put_i8(small);
            }
            Err(_) => constructed(value, code::INT, out),
        },
        Value::Long(number) => match i8::try_from(*number) {
            Ok(small) => {
                out.put_u8(code::SMALL_LONG);
                out.put_i8(small);
            }
            Err(_) => constructed(value, code::LONG, out),
        },
        Value::Binary(bytes) => binary(bytes, out),
        Value::String(text) => string(text.as_bytes(), out),
        Value::Symbol(name) => symbol(name.as_bytes(), out),
        Value::List(items) => list(out, |out| {
            items.iter().for_each(|item| self::value(item, out));
            items.len()
        }),
        Value::Map(pairs) => map(out, |out| {
            for (key, item) in pairs {
                self::value(key, out);
                self::value(item, out);
            }
            2 * pairs.len()
        }),
        Value::Array(items) => array(items, out),
        Value::Described(described) => {
            out.put_u8(code::DESCRIBED);
            self::value(&described.descriptor, out);
            self::value(&described.value, out);
        }
        other => constructed(other, code::of_items(other.kind(), false), out),
    }
}

fn constructed(value: &Value, code: u8, out: &mut BytesMut) {
    out.put_u8(code);
    data(value, code, out);
}

/// Appends what follows a constructor of full width, as items of an array have it.
fn data(value: &Value, code: u8, out: &mut BytesMut) {
    let wide = code & 0xf0 == 0xb0;
    match value {
        Value::Null => {}
        Value::Boolean(value) => out.put_u8(u8::from(*value)),
        Value::Ubyte(number) => out.put_u8(*number),
        Value::Ushort(number) => out.put_u16(*number),
        Value::Uint(number) => out.put_u32(*number),
        Value::Ulong(number) => out.put_u64(*number),
        Value::Byte(number) => out.put_i8(*number),
        Value::Short(number) => out.put_i16(*number),
        Value::Int(number) => out.put_i32(*number),
        Value::Long(number) => out.put_i64(*number),
        Value::Float(number) => out.put_f32(number.get()),
        Value::Double(number) => out.put_f64(number.get()),
        Value::Decimal32(bytes) => out.put_slice(bytes),
        Value::Decimal64(bytes) => out.put_slice(bytes),
        Value::Decimal128(bytes) | Value::Uuid(bytes) => out.put_slice(bytes),
        Value::Char(char) => out.put_u32(u32::from(*char)),
        Value::Timestamp(time) => out.put_i64(time.0),
        Value::Binary(bytes) => variable(bytes, wide, out),
        Value::String(text) => variable(text.as_bytes(), wide, out),
        Value::Symbol(name) => variable(name.as_bytes(), wide, out),
        Value::List(_) | Value::Map(_) | Value::Array(_) => wide_compound(value, out),
        Value::Described(described) => self::value(&described.value, out),
    }
}

/// Appends size, count and values of a compound with four bytes each.
fn wide_compound(compound: &Value, out: &mut BytesMut) {
    let start = out.len();
    out.put_u64(0);
    let count = match compound {
        Value::List(items) => {
            items.iter().for_each(|item| value(item, out));
            items.len()
        }
        Value::Map(pairs) => {
            for (key, item) in pairs {
                value(key, out);
                value(item, out);
            }
            2 * pairs.len()
        }
        Value::Array(items) => {
            array_items(items, out);
            items.items().len()
        }
        _ => 0,
    };
    let size = out.len() - start - 4;
    put_at(out, start, &length(size).to_be_bytes());
    put_at(out, start + 4, &length(count).to_be_bytes());
}

pub(crate) fn null(out: &mut BytesMut) {
    out.put_u8(code::NULL);
}

pub(crate) fn boolean(value: bool, out: &mut BytesMut) {
    out.put_u8(if value { code::TRUE } else { code::FALSE });
}

pub(crate) fn ushort(number: u16, out: &mut BytesMut) {
    out.put_u8(code::USHORT);
    out.put_u16(number);
}

pub(crate) fn uint(number: u32, out: &mut BytesMut) {
    match u8::try_from(number) {
        Ok(0) => out.put_u8(code::UINT0),
        Ok(small) => out.put_slice(&[code::SMALL_UINT, small]),
        Err(_) => {
            out.put_u8(code::UINT);
            out.put_u32(number);
        }
    }
}

pub(crate) fn ulong(number: u64, out: &mut BytesMut) {
    match u8::try_from(number) {
        Ok(0) => out.put_u8(code::ULONG0),
        Ok(small) => out.put_slice(&[code::SMALL_ULONG, small]),
        Err(_) => {
            out.put_u8(code::ULONG);
            out.put_u64(number);
        }
    }
}

pub(crate) fn binary(bytes: &[u8], out: &mut BytesMut) {
    narrow_or_wide(bytes, code::BINARY8, out);
}

pub(crate) fn string(bytes: &[u8], out: &mut BytesMut) {
    narrow_or_wide(bytes, code::STRING8, out);
}

pub(crate) fn symbol(bytes: &[u8], out: &mut BytesMut) {
    narrow_or_wide(bytes, code::SYMBOL8, out);
}

/// The wide constructor of each is 0x10 above the narrow one.
fn narrow_or_wide(bytes: &[u8], narrow: u8, out: &mut BytesMut) {
    let wide = bytes.len() > usize::from(u8::MAX);
    out.put_u8(if wide { narrow + 0x10 } else { narrow });
    variable(bytes, wide, out);
}

fn variable(bytes: &[u8], wide: bool, out: &mut BytesMut) {
    match u8::try_from(bytes.len()) {
        Ok(length) if !wide => out.put_u8(length),
        _ => out.put_u32(length(bytes.len())),
    }
    out.put_slice(bytes);
}

/// Appends a list of nothing.
pub(crate) fn empty_list(out: &mut BytesMut) {
    out.put_u8(code::LIST0);
}

/// Appends a list whose values `write` appends, and tells the number of.
pub(crate) fn list(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> usize) {
    compound(code::LIST8, out, write);
}

/// Appends a map whose keys and values `write` appends, and tells the number of both.
pub(crate) fn map(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> usize) {
    compound(code::MAP8, out, write);
}

/// Appends an array.
pub(crate) fn array(array: &Array, out: &mut BytesMut) {
    compound(code::ARRAY8, out, |out| {
        array_items(array, out);
        array.items().len()
    });
}

fn array_items(array: &Array, out: &mut BytesMut) {
    if let Some(descriptor) = array.descriptor() {
        out.put_u8(code::DESCRIBED);
        value(descriptor, out);
    }
    let code = code::of_items(array.kind(), array.items().iter().all(is_short));
    out.put_u8(code);
    array.items().iter().for_each(|item| data(item, code, out));
}

fn is_short(value: &Value) -> bool {
    let bytes: &Bytes = match value {
        Value::Binary(bytes) => bytes,
        Value::String(text) => text.buffer(),
        Value::Symbol(name) => name.buffer(),
        _ => return true,
    };
    bytes.len() <= usize::from(u8::MAX)
}

/// The three kinds of compounds; the wide constructor of each is 0x10 above the narrow one.
fn compound(narrow: u8, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> usize) {
    let start = out.len();
    out.put_slice(&[narrow, 0, 0]);
    let count = write(out);
    // The size counts from behind itself, so it includes the count.
    let size = out.len() - start - 2;
    if let (Ok(size), Ok(count)) = (u8::try_from(size), u8::try_from(count)) {
        put_at(out, start + 1, &[size, count]);
        return;
    }
    let end = out.len();
    out.put_bytes(0, 6);
    out.copy_within(start + 3..end, start + 9);
    put_at(out, start, &[narrow + 0x10]);
    put_at(out, start + 1, &length(size + 3).to_be_bytes());
    put_at(out, start + 5, &length(count).to_be_bytes());
}

pub(crate) fn put_at(out: &mut BytesMut, at: usize, bytes: &[u8]) {
    out.get_mut(at..at + bytes.len())
        .expect("the place was made before")
        .copy_from_slice(bytes);
}

/// A length or count on the wire. What has 4 GiB or more has no form there: it is written with the greatest, and never leaves,
/// since a delivery of that size is refused when it is sent.
pub(crate) fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Appends an array of symbols, or null when there is none.
pub(crate) fn symbols(symbols: &[crate::text::Symbol], out: &mut BytesMut) {
    if symbols.is_empty() {
        return null(out);
    }
    let items = symbols.iter().cloned().map(Value::Symbol).collect();
    let symbols = Array::new(Kind::Symbol, None, items).expect("symbols are of one kind");
    array(&symbols, out);
}
