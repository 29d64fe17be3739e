//! Constructors: the byte before a value that says its type and width. AMQP 1.0, part 1, 1.6.
//!
//! ```text
//!   0x4_ no bytes   0x5_ 1   0x6_ 2   0x7_ 4   0x8_ 8   0x9_ 16
//!   0xa_ length of 1 byte    0xb_ of 4                  0xc_ size and count of 1 byte    0xd_ of 4    0xe_, 0xf_ arrays
//! ```

use crate::value::Kind;

pub(crate) const DESCRIBED: u8 = 0x00;
pub(crate) const NULL: u8 = 0x40;
pub(crate) const TRUE: u8 = 0x41;
pub(crate) const FALSE: u8 = 0x42;
pub(crate) const UINT0: u8 = 0x43;
pub(crate) const ULONG0: u8 = 0x44;
pub(crate) const LIST0: u8 = 0x45;
pub(crate) const UBYTE: u8 = 0x50;
pub(crate) const BYTE: u8 = 0x51;
pub(crate) const SMALL_UINT: u8 = 0x52;
pub(crate) const SMALL_ULONG: u8 = 0x53;
pub(crate) const SMALL_INT: u8 = 0x54;
pub(crate) const SMALL_LONG: u8 = 0x55;
pub(crate) const BOOLEAN: u8 = 0x56;
pub(crate) const USHORT: u8 = 0x60;
pub(crate) const SHORT: u8 = 0x61;
pub(crate) const UINT: u8 = 0x70;
pub(crate) const INT: u8 = 0x71;
pub(crate) const FLOAT: u8 = 0x72;
pub(crate) const CHAR: u8 = 0x73;
pub(crate) const DECIMAL32: u8 = 0x74;
pub(crate) const ULONG: u8 = 0x80;
pub(crate) const LONG: u8 = 0x81;
pub(crate) const DOUBLE: u8 = 0x82;
pub(crate) const TIMESTAMP: u8 = 0x83;
pub(crate) const DECIMAL64: u8 = 0x84;
pub(crate) const DECIMAL128: u8 = 0x94;
pub(crate) const UUID: u8 = 0x98;
pub(crate) const BINARY8: u8 = 0xa0;
pub(crate) const STRING8: u8 = 0xa1;
pub(crate) const SYMBOL8: u8 = 0xa3;
pub(crate) const BINARY32: u8 = 0xb0;
pub(crate) const STRING32: u8 = 0xb1;
pub(crate) const SYMBOL32: u8 = 0xb3;
pub(crate) const LIST8: u8 = 0xc0;
pub(crate) const MAP8: u8 = 0xc1;
pub(crate) const LIST32: u8 = 0xd0;
pub(crate) const MAP32: u8 = 0xd1;
pub(crate) const ARRAY8: u8 = 0xe0;
pub(crate) const ARRAY32: u8 = 0xf0;

/// The type that a constructor belongs to; none for a byte that AMQP 1.0 does not have.
pub(crate) const fn kind(code: u8) -> Option<Kind> {
    Some(match code {
        DESCRIBED => Kind::Described,
        NULL => Kind::Null,
        TRUE | FALSE | BOOLEAN => Kind::Boolean,
        UBYTE => Kind::Ubyte,
        USHORT => Kind::Ushort,
        UINT | SMALL_UINT | UINT0 => Kind::Uint,
        ULONG | SMALL_ULONG | ULONG0 => Kind::Ulong,
        BYTE => Kind::Byte,
        SHORT => Kind::Short,
        INT | SMALL_INT => Kind::Int,
        LONG | SMALL_LONG => Kind::Long,
        FLOAT => Kind::Float,
        DOUBLE => Kind::Double,
        DECIMAL32 => Kind::Decimal32,
        DECIMAL64 => Kind::Decimal64,
        DECIMAL128 => Kind::Decimal128,
        CHAR => Kind::Char,
        TIMESTAMP => Kind::Timestamp,
        UUID => Kind::Uuid,
        BINARY8 | BINARY32 => Kind::Binary,
        STRING8 | STRING32 => Kind::String,
        SYMBOL8 | SYMBOL32 => Kind::Symbol,
        LIST0 | LIST8 | LIST32 => Kind::List,
        MAP8 | MAP32 => Kind::Map,
        ARRAY8 | ARRAY32 => Kind::Array,
        _ => return None,
    })
}

/// The constructor of all items of an array: the one whose items need nothing told of each but its length.
pub(crate) const fn of_items(kind: Kind, short: bool) -> u8 {
    match (kind, short) {
        (Kind::Null, _) => NULL,
        (Kind::Boolean, _) => BOOLEAN,
        (Kind::Ubyte, _) => UBYTE,
        (Kind::Ushort, _) => USHORT,
        (Kind::Uint, _) => UINT,
        (Kind::Ulong, _) => ULONG,
        (Kind::Byte, _) => BYTE,
        (Kind::Short, _) => SHORT,
        (Kind::Int, _) => INT,
        (Kind::Long, _) => LONG,
        (Kind::Float, _) => FLOAT,
        (Kind::Double, _) => DOUBLE,
        (Kind::Decimal32, _) => DECIMAL32,
        (Kind::Decimal64, _) => DECIMAL64,
        (Kind::Decimal128, _) => DECIMAL128,
        (Kind::Char, _) => CHAR,
        (Kind::Timestamp, _) => TIMESTAMP,
        (Kind::Uuid, _) => UUID,
        (Kind::Binary, true) => BINARY8,
        (Kind::Binary, false) => BINARY32,
        (Kind::String, true) => STRING8,
        (Kind::String, false) => STRING32,
        (Kind::Symbol, true) => SYMBOL8,
        (Kind::Symbol, false) => SYMBOL32,
        (Kind::List, _) => LIST32,
        (Kind::Map, _) => MAP32,
        (Kind::Array, _) => ARRAY32,
        (Kind::Described, _) => DESCRIBED,
    }
}
