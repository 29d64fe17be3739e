//! Maps with keys of one kind: link properties, annotations and filters by symbol, application properties by string.
//!
//! They keep their order on the wire, and are short, so that looking through them is the quickest way to find a key.

use bytes::BytesMut;

use crate::codec::fields::Field;
use crate::codec::read::Reader;
use crate::codec::{Fault, write};
use crate::text::{Symbol, Text};
use crate::value::Value;

/// Values by name. No entries and no map at all are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K>(Vec<(K, Value)>);

/// Values by symbol: `fields`, `annotations`, filters, node properties. AMQP 1.0, part 2, 2.8.13; part 3, 3.2.10.
pub type Fields = Map<Symbol>;

/// Values by string. AMQP 1.0, part 3, 3.2.5.
pub type ApplicationProperties = Map<Text>;

impl<K> Default for Map<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K> Map<K> {
    /// A map without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Adds an entry at the end; that the key is new is the caller's to know.
    pub fn push(&mut self, key: K, value: impl Into<Value>) {
        self.0.push((key, value.into()));
    }

    /// The same map with one more entry.
    #[must_use]
    pub fn with(mut self, key: K, value: impl Into<Value>) -> Self {
        self.push(key, value);
        self
    }
}

impl<K: PartialEq<str>> Map<K> {
    /// The first value under that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| *key == *name).map(|(_, value)| value)
    }
}

impl<K> FromIterator<(K, Value)> for Map<K> {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<K> IntoIterator for Map<K> {
    type Item = (K, Value);
    type IntoIter = std::vec::IntoIter<(K, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A type of key.
pub(crate) trait Key: Sized {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault>;
    fn write(&self, out: &mut BytesMut);
}

impl Key for Symbol {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let code = reader.byte()?;
        reader.symbol(code)
    }

    fn write(&self, out: &mut BytesMut) {
        write::symbol(self.as_bytes(), out);
    }
}

impl Key for Text {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let code = reader.byte()?;
        reader.text(code)
    }

    fn write(&self, out: &mut BytesMut) {
        write::string(self.as_bytes(), out);
    }
}

pub(crate) fn read_map<K: Key>(code: u8, reader: &mut Reader<'_>) -> Result<Map<K>, Fault> {
    reader.pairs(code, K::read).map(Map)
}

pub(crate) fn write_map<K: Key>(map: &Map<K>, out: &mut BytesMut) {
    write::map(out, |out| {
        for (key, value) in &map.0 {
            key.write(out);
            write::value(value, out);
        }
        2 * map.0.len()
    });
}

impl<K: Key> Field for Map<K> {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        read_map(code, reader)
    }

    fn write(&self, out: &mut BytesMut) {
        if self.is_empty() {
            write::null(out);
        } else {
            write_map(self, out);
        }
    }
}
