//! Messages: what the bytes of a delivery are at message format 0. AMQP 1.0, part 3, 3.2.
//!
//! ```text
//!   header 0x70 | delivery annotations 0x71 | message annotations 0x72 | properties 0x73 | application properties 0x74
//!   body: data 0x75, once or more | sequence 0x76, once or more | value 0x77, once        | footer 0x78
//! ```
//!
//! Every section but the body may be missing, and no section is the same as one without entries. Decoding takes sections in any
//! order, and a body that is missing (some clients send none) as [`Body::Empty`]; encoding writes them in the standard's order,
//! each structure with all its fields.

mod batch;
mod properties;
mod writer;

use bytes::{Bytes, BytesMut};

pub use batch::{BATCH_FORMAT, Batch, messages_of_batch};
pub use properties::{Header, MessageId, Properties};
pub use writer::{Entries, MessageWriter};

use crate::codec::fields::{Composite, read_body, read_descriptor, write_composite, write_descriptor};
use crate::codec::read::{Reader, wrong};
use crate::codec::{DecodeError, Fault, Limits, code, write};
use crate::map::{self, ApplicationProperties, Fields, Key, Map};
use crate::value::Value;

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// How it shall be carried.
    pub header: Option<Box<Header>>,
    /// For the next hop.
    pub delivery_annotations: Fields,
    /// For the infrastructure.
    pub message_annotations: Fields,
    /// The standard's properties.
    pub properties: Option<Box<Properties>>,
    /// The application's properties.
    pub application_properties: ApplicationProperties,
    /// What it says.
    pub body: Body,
    /// What is only known at the end, like sums.
    pub footer: Fields,
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing; not of the standard, yet on the wire.
    #[default]
    Empty,
    /// Bytes, in one section or more.
    Data(Vec<Bytes>),
    /// Lists of values, in one section or more.
    Sequence(Vec<Vec<Value>>),
    /// A value.
    Value(Value),
}

const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

impl Message {
    /// A message of one section of bytes.
    #[must_use]
    pub fn of_data(data: impl Into<Bytes>) -> Self {
        Self {
            body: Body::Data(vec![data.into()]),
            ..Self::default()
        }
    }

    /// A message of one value.
    #[must_use]
    pub fn of_value(value: impl Into<Value>) -> Self {
        Self {
            body: Body::Value(value.into()),
            ..Self::default()
        }
    }

    /// Reads the bytes of a delivery.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the section and its field.
    pub fn decode(bytes: &Bytes, limits: Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, limits);
        let mut message = Self::default();
        while reader.left() > 0 {
            message.read_section(&mut reader)?;
        }
        Ok(message)
    }

    fn read_section(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let error = |fault| DecodeError::new("message", "section", fault);
        let descriptor = match reader.byte().map_err(error)? {
            code::DESCRIBED => read_descriptor(reader).map_err(error)?,
            other => return Err(error(wrong("a described section", other))),
        };
        match descriptor {
            Header::DESCRIPTOR => once(&mut self.header, Box::new(read_body(reader)?), "header"),
            Properties::DESCRIPTOR => once(&mut self.properties, Box::new(read_body(reader)?), "properties"),
            DELIVERY_ANNOTATIONS => read_map(&mut self.delivery_annotations, reader, "delivery-annotations"),
            MESSAGE_ANNOTATIONS => read_map(&mut self.message_annotations, reader, "message-annotations"),
            APPLICATION_PROPERTIES => read_map(&mut self.application_properties, reader, "application-properties"),
            FOOTER => read_map(&mut self.footer, reader, "footer"),
            DATA | SEQUENCE | VALUE => self
                .body
                .read_section(descriptor, reader)
                .map_err(|fault| DecodeError::new("message", "body", fault)),
            _ => Err(error(Fault::UnknownDescriptor)),
        }
    }

    /// Appends the message.
    ///
    /// # Panics
    /// When a part of it has 4 GiB.
    pub fn encode(&self, out: &mut BytesMut) {
        if let Some(header) = &self.header {
            write_composite(&**header, out);
        }
        write_map(DELIVERY_ANNOTATIONS, &self.delivery_annotations, out);
        write_map(MESSAGE_ANNOTATIONS, &self.message_annotations, out);
        if let Some(properties) = &self.properties {
            write_composite(&**properties, out);
        }
        write_map(APPLICATION_PROPERTIES, &self.application_properties, out);
        self.body.encode(out);
        write_map(FOOTER, &self.footer, out);
    }

    /// The message's bytes.
    ///
    /// # Panics
    /// When a part of it has 4 GiB.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let data: usize = match &self.body {
            Body::Data(sections) => sections.iter().map(Bytes::len).sum(),
            _ => 0,
        };
        let mut out = BytesMut::with_capacity(data + 256);
        self.encode(&mut out);
        out.freeze()
    }
}

impl Body {
    /// The bytes of a body of data: without a copy when it is one section, empty when there is no body; none for other
    /// kinds of body.
    #[must_use]
    pub fn data(&self) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Data(sections) => match sections.as_slice() {
                [only] => Some(only.clone()),
                several => Some(several.concat().into()),
            },
            Self::Sequence(_) | Self::Value(_) => None,
        }
    }

    fn read_section(&mut self, descriptor: u64, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let code = reader.byte()?;
        match (descriptor, &mut *self) {
            (DATA, Self::Empty) => *self = Self::Data(vec![reader.binary(code)?]),
            (DATA, Self::Data(sections)) => sections.push(reader.binary(code)?),
            (SEQUENCE, Self::Empty) => *self = Self::Sequence(vec![reader.list(code)?]),
            (SEQUENCE, Self::Sequence(sections)) => sections.push(reader.list(code)?),
            (VALUE, Self::Empty) => *self = Self::Value(reader.value_of(code)?),
            _ => return Err(Fault::Repeated),
        }
        Ok(())
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Empty => {}
            Self::Data(sections) => {
                for section in sections {
                    write_data(section, out);
                }
            }
            Self::Sequence(sections) => {
                for section in sections {
                    write_descriptor(SEQUENCE, out);
                    write::list(out, |out| {
                        section.iter().for_each(|item| write::value(item, out));
                        section.len()
                    });
                }
            }
            Self::Value(value) => {
                write_descriptor(VALUE, out);
                write::value(value, out);
            }
        }
    }
}

fn write_data(data: &[u8], out: &mut BytesMut) {
    out.reserve(data.len() + 8);
    write_descriptor(DATA, out);
    write::binary(data, out);
}

fn once<T>(place: &mut Option<T>, section: T, name: &'static str) -> Result<(), DecodeError> {
    if place.is_some() {
        return Err(DecodeError::new("message", name, Fault::Repeated));
    }
    *place = Some(section);
    Ok(())
}

fn read_map<K: Key>(place: &mut Map<K>, reader: &mut Reader<'_>, name: &'static str) -> Result<(), DecodeError> {
    let error = |fault| DecodeError::new("message", name, fault);
    if !place.is_empty() {
        return Err(error(Fault::Repeated));
    }
    let code = reader.byte().map_err(error)?;
    if code != code::NULL {
        *place = map::read_map(code, reader).map_err(error)?;
    }
    Ok(())
}

fn write_map<K: Key>(descriptor: u64, entries: &Map<K>, out: &mut BytesMut) {
    if !entries.is_empty() {
        write_descriptor(descriptor, out);
        map::write_map(entries, out);
    }
}
