//! Structures: a descriptor and a list of fields, some mandatory, some with a default. AMQP 1.0, part 1, 1.4.
//!
//! ```text
//!   0x00 | descriptor (ulong or symbol) | list | field 1 | field 2 | …        fields left out at the end are null
//! ```
//!
//! Invariants: what is written has every field, nulls included, since clients read them by position (`libraries.md`, AMQP
//! fact 1); what is read may leave out the last ones. Each error names the structure and the field.

use bytes::{BufMut, Bytes, BytesMut};

use super::read::{Reader, wrong};
use super::{DecodeError, Fault, code, write};
use crate::text::{Symbol, Text};
use crate::value::{Timestamp, Value};

/// A type that a field can have.
pub(crate) trait Field: Sized {
    /// What null means, and a list that ends before; `None` when the field is mandatory.
    fn absent() -> Option<Self> {
        None
    }

    /// Reads the value whose constructor was read, and is not null.
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault>;

    /// Appends the value with its constructor.
    fn write(&self, out: &mut BytesMut);
}

/// A structure, as [`composite!`] makes it.
pub(crate) trait Composite: Sized {
    /// The low 32 bits of the descriptor; the high ones, the domain, are 0.
    const DESCRIPTOR: u64;
    /// The name in the standard.
    const NAME: &'static str;
    /// The number of fields.
    const COUNT: usize;

    fn read_fields(fields: &mut FieldReader<'_, '_>) -> Result<Self, DecodeError>;
    fn write_fields(&self, out: &mut BytesMut);
}

/// The fields of one structure, from the first on.
#[derive(Debug)]
pub(crate) struct FieldReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    of: &'static str,
    left: usize,
}

impl FieldReader<'_, '_> {
    /// The next field, its default when it is null or left out.
    pub(crate) fn next_or<F: Field>(&mut self, field: &'static str, default: Option<F>) -> Result<F, DecodeError> {
        let of = self.of;
        let read = match self.next_code() {
            Ok(Some(code)) => F::read(code, self.reader),
            Ok(None) => default.ok_or(Fault::Missing),
            Err(fault) => Err(fault),
        };
        read.map_err(|fault| DecodeError::new(of, field, fault))
    }

    /// The next field.
    pub(crate) fn next<F: Field>(&mut self, field: &'static str) -> Result<F, DecodeError> {
        self.next_or(field, F::absent())
    }

    /// The constructor of the next field, unless that is null.
    fn next_code(&mut self) -> Result<Option<u8>, Fault> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        match self.reader.byte()? {
            code::NULL => Ok(None),
            code => Ok(Some(code)),
        }
    }
}

/// Reads the list of a structure whose descriptor was read.
pub(crate) fn read_body<C: Composite>(reader: &mut Reader<'_>) -> Result<C, DecodeError> {
    let error = |fault| DecodeError::new(C::NAME, "list of fields", fault);
    let code = reader.byte().map_err(error)?;
    let compound = reader.enter_list(code).map_err(error)?;
    let (count, limit) = (usize::try_from(compound.count).unwrap_or(usize::MAX), C::COUNT);
    if count > limit {
        return Err(error(Fault::TooManyFields { count, limit }));
    }
    let mut fields = FieldReader {
        reader,
        of: C::NAME,
        left: count,
    };
    let composite = C::read_fields(&mut fields)?;
    reader.leave(compound).map_err(error)?;
    Ok(composite)
}

/// Appends a structure with its descriptor and all its fields.
pub(crate) fn write_composite<C: Composite>(composite: &C, out: &mut BytesMut) {
    write_descriptor(C::DESCRIPTOR, out);
    write::list(out, |out| {
        composite.write_fields(out);
        C::COUNT
    });
}

pub(crate) fn write_descriptor(descriptor: u64, out: &mut BytesMut) {
    out.put_u8(code::DESCRIBED);
    write::ulong(descriptor, out);
}

/// Reads a descriptor after its 0x00: the number, or the number that a name stands for.
pub(crate) fn read_descriptor(reader: &mut Reader<'_>) -> Result<u64, Fault> {
    let code = reader.byte()?;
    match code {
        code::SYMBOL8 | code::SYMBOL32 => {
            let name = reader.symbol(code)?;
            by_name(&name).ok_or(Fault::UnknownDescriptor)
        }
        _ => reader.ulong(code),
    }
}

/// Descriptors by name, for the few peers that write names. AMQP 1.0, parts 2, 3 and 5.
const NAMES: &[(&str, u64)] = &[
    ("amqp:open:list", 0x10),
    ("amqp:begin:list", 0x11),
    ("amqp:attach:list", 0x12),
    ("amqp:flow:list", 0x13),
    ("amqp:transfer:list", 0x14),
    ("amqp:disposition:list", 0x15),
    ("amqp:detach:list", 0x16),
    ("amqp:end:list", 0x17),
    ("amqp:close:list", 0x18),
    ("amqp:error:list", 0x1d),
    ("amqp:received:list", 0x23),
    ("amqp:accepted:list", 0x24),
    ("amqp:rejected:list", 0x25),
    ("amqp:released:list", 0x26),
    ("amqp:modified:list", 0x27),
    ("amqp:source:list", 0x28),
    ("amqp:target:list", 0x29),
    ("amqp:sasl-mechanisms:list", 0x40),
    ("amqp:sasl-init:list", 0x41),
    ("amqp:sasl-challenge:list", 0x42),
    ("amqp:sasl-response:list", 0x43),
    ("amqp:sasl-outcome:list", 0x44),
    ("amqp:header:list", 0x70),
    ("amqp:delivery-annotations:map", 0x71),
    ("amqp:message-annotations:map", 0x72),
    ("amqp:properties:list", 0x73),
    ("amqp:application-properties:map", 0x74),
    ("amqp:data:binary", 0x75),
    ("amqp:amqp-sequence:list", 0x76),
    ("amqp:amqp-value:*", 0x77),
    ("amqp:footer:map", 0x78),
];

pub(crate) fn by_name(name: &Symbol) -> Option<u64> {
    let found = NAMES.iter().find(|(known, _)| *name == *known);
    found.map(|(_, descriptor)| *descriptor)
}

/// A structure as a field of another one.
impl<C: Composite> Field for Box<C> {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        read_nested(code, reader).map(Self::new)
    }

    fn write(&self, out: &mut BytesMut) {
        write_composite(&**self, out);
    }
}

/// Reads a structure that stands in a field.
pub(crate) fn read_nested<C: Composite>(code: u8, reader: &mut Reader<'_>) -> Result<C, Fault> {
    if code != code::DESCRIBED {
        return Err(wrong(C::NAME, code));
    }
    if read_descriptor(reader)? != C::DESCRIPTOR {
        return Err(Fault::UnknownDescriptor);
    }
    Ok(read_body(reader)?)
}

impl<F: Field> Field for Option<F> {
    fn absent() -> Option<Self> {
        Some(None)
    }

    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        F::read(code, reader).map(Some)
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Some(field) => field.write(out),
            None => write::null(out),
        }
    }
}

/// Fields that are a primitive of the standard.
macro_rules! primitive_field {
    ($($type:ty, $read:ident, |$value:ident, $out:ident| $write:expr;)*) => {
        $(impl Field for $type {
            fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
                reader.$read(code)
            }

            fn write(&self, $out: &mut BytesMut) {
                let $value = self;
                $write;
            }
        })*
    };
}

primitive_field! {
    bool, boolean, |value, out| write::boolean(*value, out);
    u8, ubyte, |value, out| out.put_slice(&[code::UBYTE, *value]);
    u16, ushort, |value, out| write::ushort(*value, out);
    u32, uint, |value, out| write::uint(*value, out);
    u64, ulong, |value, out| write::ulong(*value, out);
    Timestamp, timestamp, |value, out| write::value(&Value::Timestamp(*value), out);
    Bytes, binary, |value, out| write::binary(value, out);
    Text, text, |value, out| write::string(value.as_bytes(), out);
    Symbol, symbol, |value, out| write::symbol(value.as_bytes(), out);
    Value, value_of, |value, out| write::value(value, out);
}

/// A field marked `multiple` with symbols: null, one symbol, or an array of them. AMQP 1.0, part 1, 1.4.
impl Field for Vec<Symbol> {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        if !matches!(code, code::ARRAY8 | code::ARRAY32) {
            return Ok(vec![reader.symbol(code)?]);
        }
        let items = reader.array(code)?.into_items().into_iter();
        items
            .map(|item| match item {
                Value::Symbol(symbol) => Ok(symbol),
                Value::String(text) => Symbol::try_from(text.buffer().clone()).map_err(|_| Fault::NotAscii),
                other => Err(Fault::WrongType {
                    expected: "an array of symbols",
                    found: other.kind(),
                }),
            })
            .collect()
    }

    fn write(&self, out: &mut BytesMut) {
        write::symbols(self, out);
    }
}

/// Makes a structure of the standard: the type, its fields in order with their names there, and how it is read and written.
/// A field without a default is mandatory unless its type says what null means.
macro_rules! composite {
    (
        $(#[$doc:meta])*
        $vis:vis $name:ident = $descriptor:literal, $wire_name:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $wire_field:literal $(or $default:expr)?,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $crate::codec::fields::Composite for $name {
            const DESCRIPTOR: u64 = $descriptor;
            const NAME: &'static str = $wire_name;
            const COUNT: usize = [$($wire_field,)*].len();

            fn read_fields(
                fields: &mut $crate::codec::fields::FieldReader<'_, '_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: composite!(@read fields, $wire_field $(, $default)?),)* })
            }

            fn write_fields(&self, out: &mut bytes::BytesMut) {
                $($crate::codec::fields::Field::write(&self.$field, out);)*
            }
        }
    };
    (@read $fields:ident, $wire_field:literal) => { $fields.next($wire_field)? };
    (@read $fields:ident, $wire_field:literal, $default:expr) => { $fields.next_or($wire_field, Some($default))? };
}

pub(crate) use composite;
