//! Any value of AMQP 1.0: what application properties, annotations, filters and bodies may hold.
//!
//! ```text
//!   Value ─┬─ null, boolean, integers of eight widths, floats, decimals, char, timestamp, uuid
//!          ├─ binary, string, symbol                          slices of the frame
//!          ├─ list [Value]   map [(Value, Value)]             in their order on the wire
//!          ├─ array (one kind for all, perhaps one descriptor for all)
//!          └─ described (descriptor, Value)
//! ```
//!
//! Invariants: a value that was decoded and is encoded again means the same, of the same type: an `int` 1 never becomes a
//! `long` 1, since clients compare types (`libraries.md`, AMQP fact 5). Only the width on the wire may differ. Floats
//! compare by their bits, so that every value equals itself.

use bytes::Bytes;
use thiserror::Error;

use crate::text::{Symbol, Text};

/// Any value. AMQP 1.0, part 1, 1.6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Boolean(bool),
    /// 8 bits without a sign.
    Ubyte(u8),
    /// 16 bits without a sign.
    Ushort(u16),
    /// 32 bits without a sign.
    Uint(u32),
    /// 64 bits without a sign.
    Ulong(u64),
    /// 8 bits with a sign.
    Byte(i8),
    /// 16 bits with a sign.
    Short(i16),
    /// 32 bits with a sign.
    Int(i32),
    /// 64 bits with a sign.
    Long(i64),
    /// IEEE 754 binary32.
    Float(Float32),
    /// IEEE 754 binary64.
    Double(Float64),
    /// IEEE 754 decimal32, as it is on the wire.
    Decimal32([u8; 4]),
    /// IEEE 754 decimal64, as it is on the wire.
    Decimal64([u8; 8]),
    /// IEEE 754 decimal128, as it is on the wire.
    Decimal128([u8; 16]),
    /// A Unicode character.
    Char(char),
    /// A point in time.
    Timestamp(Timestamp),
    /// RFC 4122, in network order.
    Uuid([u8; 16]),
    /// Any bytes.
    Binary(Bytes),
    /// UTF-8.
    String(Text),
    /// A name from a known set, in ASCII.
    Symbol(Symbol),
    /// Values of any kinds.
    List(Vec<Self>),
    /// Pairs in their order on the wire; keys are not checked to differ.
    Map(Vec<(Self, Self)>),
    /// Values of one kind.
    Array(Array),
    /// A value with a word on how to take it.
    Described(Box<Described>),
}

/// Milliseconds since 1970-01-01 UTC, before it negative. AMQP 1.0, part 1, 1.6.17.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// IEEE 754 binary32, compared by its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Float32(u32);

/// IEEE 754 binary64, compared by its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Float64(u64);

/// A value with its descriptor, a `ulong` or a symbol by the standard, anything on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Described {
    /// What kind of thing it is.
    pub descriptor: Value,
    /// The thing.
    pub value: Value,
}

/// Values of one kind, with one descriptor for all or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Array {
    descriptor: Option<Box<Value>>,
    kind: Kind,
    items: Vec<Value>,
}

/// Values that are no array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an array of {wanted} holds a {found}; use a list for values of several types")]
pub struct MixedArray {
    /// The kind of the array.
    pub wanted: Kind,
    /// Another kind in it.
    pub found: Kind,
}

/// The type of a value, by its name in the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of `Value`")]
pub enum Kind {
    Null,
    Boolean,
    Ubyte,
    Ushort,
    Uint,
    Ulong,
    Byte,
    Short,
    Int,
    Long,
    Float,
    Double,
    Decimal32,
    Decimal64,
    Decimal128,
    Char,
    Timestamp,
    Uuid,
    Binary,
    String,
    Symbol,
    List,
    Map,
    Array,
    Described,
}

impl Kind {
    /// The name in the standard.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Ubyte => "ubyte",
            Self::Ushort => "ushort",
            Self::Uint => "uint",
            Self::Ulong => "ulong",
            Self::Byte => "byte",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Decimal32 => "decimal32",
            Self::Decimal64 => "decimal64",
            Self::Decimal128 => "decimal128",
            Self::Char => "char",
            Self::Timestamp => "timestamp",
            Self::Uuid => "uuid",
            Self::Binary => "binary",
            Self::String => "string",
            Self::Symbol => "symbol",
            Self::List => "list",
            Self::Map => "map",
            Self::Array => "array",
            Self::Described => "described value",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Value {
    /// The type of the value.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Boolean(_) => Kind::Boolean,
            Self::Ubyte(_) => Kind::Ubyte,
            Self::Ushort(_) => Kind::Ushort,
            Self::Uint(_) => Kind::Uint,
            Self::Ulong(_) => Kind::Ulong,
            Self::Byte(_) => Kind::Byte,
            Self::Short(_) => Kind::Short,
            Self::Int(_) => Kind::Int,
            Self::Long(_) => Kind::Long,
            Self::Float(_) => Kind::Float,
            Self::Double(_) => Kind::Double,
            Self::Decimal32(_) => Kind::Decimal32,
            Self::Decimal64(_) => Kind::Decimal64,
            Self::Decimal128(_) => Kind::Decimal128,
            Self::Char(_) => Kind::Char,
            Self::Timestamp(_) => Kind::Timestamp,
            Self::Uuid(_) => Kind::Uuid,
            Self::Binary(_) => Kind::Binary,
            Self::String(_) => Kind::String,
            Self::Symbol(_) => Kind::Symbol,
            Self::List(_) => Kind::List,
            Self::Map(_) => Kind::Map,
            Self::Array(_) => Kind::Array,
            Self::Described(_) => Kind::Described,
        }
    }

    /// A described value.
    #[must_use]
    pub fn described(descriptor: Self, value: Self) -> Self {
        Self::Described(Box::new(Described { descriptor, value }))
    }

    /// The text of a string or a symbol.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            Self::Symbol(symbol) => Some(symbol.as_str()),
            _ => None,
        }
    }

    /// A whole number of any width, if it fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Ubyte(number) => Some(i64::from(*number)),
            Self::Ushort(number) => Some(i64::from(*number)),
            Self::Uint(number) => Some(i64::from(*number)),
            Self::Ulong(number) => i64::try_from(*number).ok(),
            Self::Byte(number) => Some(i64::from(*number)),
            Self::Short(number) => Some(i64::from(*number)),
            Self::Int(number) => Some(i64::from(*number)),
            Self::Long(number) => Some(*number),
            _ => None,
        }
    }
}

impl Array {
    /// An array of values of one kind.
    ///
    /// # Errors
    /// [`MixedArray`] when a value is of another kind. A described kind goes by `descriptor`, not by described values.
    pub fn new(kind: Kind, descriptor: Option<Value>, items: Vec<Value>) -> Result<Self, MixedArray> {
        let wrong = |found| MixedArray { wanted: kind, found };
        if kind == Kind::Described {
            return Err(wrong(kind));
        }
        if let Some(item) = items.iter().find(|item| item.kind() != kind) {
            return Err(wrong(item.kind()));
        }
        Ok(Self {
            descriptor: descriptor.map(Box::new),
            kind,
            items,
        })
    }

    /// An array of strings.
    #[must_use]
    pub fn of_strings(items: impl IntoIterator<Item = Text>) -> Self {
        Self {
            descriptor: None,
            kind: Kind::String,
            items: items.into_iter().map(Value::String).collect(),
        }
    }

    /// What all items are described by.
    #[must_use]
    pub fn descriptor(&self) -> Option<&Value> {
        self.descriptor.as_deref()
    }

    /// The kind of all items.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The items, without their descriptor.
    #[must_use]
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// The items, taken out.
    #[must_use]
    pub fn into_items(self) -> Vec<Value> {
        self.items
    }
}

impl Float32 {
    /// The number.
    #[must_use]
    pub const fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl Float64 {
    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f32> for Float32 {
    fn from(number: f32) -> Self {
        Self(number.to_bits())
    }
}

impl From<f64> for Float64 {
    fn from(number: f64) -> Self {
        Self(number.to_bits())
    }
}

/// A conversion for each type that has one kind only.
macro_rules! value_from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from!(
    bool => Boolean, u8 => Ubyte, u16 => Ushort, u32 => Uint, u64 => Ulong, i8 => Byte, i16 => Short, i32 => Int,
    i64 => Long, f32 => Float, f64 => Double, char => Char, Timestamp => Timestamp, Bytes => Binary, Text => String,
    Symbol => Symbol, &str => String, String => String, Array => Array,
);
