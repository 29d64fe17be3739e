//! Writing a message straight into a buffer, section by section, for nodes that send many: no value is built to be written.
//!
//! ```text
//!   MessageWriter --delivery_annotations, message_annotations--> Entries (symbol -> value)
//!                 --properties-------------------------------> Properties
//!                 --application_properties-------------------> Entries (string -> value)
//!                 --data-------------------------------------> bytes
//! ```
//!
//! What is written is what [`Message::encode`](super::Message::encode) writes of the same sections. The order is the caller's to
//! keep: that of the list above.

use bytes::BytesMut;

use super::{APPLICATION_PROPERTIES, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, Properties, write_data};
use crate::codec::fields::{write_composite, write_descriptor};
use crate::codec::write;
use crate::value::{Timestamp, Value};

/// Appends the sections of one message to a buffer.
#[derive(Debug)]
pub struct MessageWriter<'o>(&'o mut BytesMut);

/// Appends the entries of one section, as many as there are. That names differ is the caller's to know.
#[derive(Debug)]
pub struct Entries<'o> {
    out: &'o mut BytesMut,
    count: usize,
    /// Annotations have symbols for names, application properties strings.
    symbols: bool,
}

impl<'o> MessageWriter<'o> {
    /// Begins a message at the end of a buffer.
    #[must_use]
    pub const fn new(out: &'o mut BytesMut) -> Self {
        Self(out)
    }

    /// What is for the next hop.
    pub fn delivery_annotations(&mut self, write: impl FnOnce(&mut Entries<'_>)) {
        self.entries(DELIVERY_ANNOTATIONS, true, write);
    }

    /// What is for the infrastructure.
    pub fn message_annotations(&mut self, write: impl FnOnce(&mut Entries<'_>)) {
        self.entries(MESSAGE_ANNOTATIONS, true, write);
    }

    /// The standard's properties.
    pub fn properties(&mut self, properties: &Properties) {
        write_composite(properties, self.0);
    }

    /// The application's properties.
    pub fn application_properties(&mut self, write: impl FnOnce(&mut Entries<'_>)) {
        self.entries(APPLICATION_PROPERTIES, false, write);
    }

    /// A section of bytes.
    ///
    /// # Panics
    /// When it has 4 GiB.
    pub fn data(&mut self, data: &[u8]) {
        write_data(data, self.0);
    }

    fn entries(&mut self, descriptor: u64, symbols: bool, fill: impl FnOnce(&mut Entries<'_>)) {
        let start = self.0.len();
        write_descriptor(descriptor, self.0);
        let mut is_empty = true;
        write::map(self.0, |out| {
            let mut entries = Entries { out, count: 0, symbols };
            fill(&mut entries);
            is_empty = entries.count == 0;
            2 * entries.count
        });
        // No section is the same as one without entries.
        if is_empty {
            self.0.truncate(start);
        }
    }
}

impl Entries<'_> {
    /// Adds a string.
    pub fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        write::string(value.as_bytes(), self.out);
    }

    /// Adds a `long`.
    pub fn long(&mut self, name: &str, value: i64) {
        self.value(name, &Value::Long(value));
    }

    /// Adds a point in time.
    pub fn timestamp(&mut self, name: &str, value: Timestamp) {
        self.value(name, &Value::Timestamp(value));
    }

    /// Adds any value.
    pub fn value(&mut self, name: &str, value: &Value) {
        self.name(name);
        write::value(value, self.out);
    }

    /// A symbol is ASCII: other characters, which no published name has, become `?`.
    fn name(&mut self, name: &str) {
        self.count += 1;
        match (self.symbols, name.is_ascii()) {
            (false, _) => write::string(name.as_bytes(), self.out),
            (true, true) => write::symbol(name.as_bytes(), self.out),
            (true, false) => {
                let ascii: String = name.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
                write::symbol(ascii.as_bytes(), self.out);
            }
        }
    }
}
