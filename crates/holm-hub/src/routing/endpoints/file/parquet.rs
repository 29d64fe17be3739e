//! A finished file in Apache Parquet, for analytical tools.
//!
//! ```text
//! enqueued_time  timestamp, ms, UTC     partition        int32           sequence_number  int64
//! device_id, module_id, source, content_type, content_encoding           string, may be null
//! properties, system_properties         string, JSON: the objects of the lines of JSON
//! body           bytes, as they were sent
//! ```
//!
//! A row group has as many messages as fit into [`GROUP_BYTES`], which is what writing takes of memory. Columns are compressed by Snappy. The
//! same messages give the same bytes: a crash must be able to write a file again.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use holm_model::{Message, SystemProperty};

use super::journal::{Kept, Messages};
use crate::routing::endpoints::record;

/// Bytes of a row group before they are compressed.
const GROUP_BYTES: usize = 8 << 20;

const SCHEMA: &str = "
    message routed {
        REQUIRED INT64 enqueued_time (TIMESTAMP(MILLIS, true));
        REQUIRED INT32 partition;
        REQUIRED INT64 sequence_number;
        OPTIONAL BYTE_ARRAY device_id (STRING);
        OPTIONAL BYTE_ARRAY module_id (STRING);
        OPTIONAL BYTE_ARRAY source (STRING);
        OPTIONAL BYTE_ARRAY content_type (STRING);
        OPTIONAL BYTE_ARRAY content_encoding (STRING);
        REQUIRED BYTE_ARRAY properties (JSON);
        REQUIRED BYTE_ARRAY system_properties (JSON);
        REQUIRED BYTE_ARRAY body;
    }";

/// Columns that a message may have no value for, in their order.
const OPTIONAL: [SystemProperty; 5] = [
    SystemProperty::ConnectionDeviceId,
    SystemProperty::ConnectionModuleId,
    SystemProperty::MessageSource,
    SystemProperty::ContentType,
    SystemProperty::ContentEncoding,
];

/// Writes the messages of a partition.
///
/// # Errors
/// What the file system refused.
pub(super) fn write(file: File, partition: u16, mut messages: Messages) -> io::Result<File> {
    let schema = parse_message_type(SCHEMA).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_created_by(concat!("holm version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
    let mut group = Group::default();
    loop {
        let next = messages.next()?;
        let is_last = next.is_none();
        if let Some(kept) = next {
            group.add(kept)?;
        }
        if group.bytes >= GROUP_BYTES || (is_last && !group.sequences.is_empty()) {
            let full = std::mem::take(&mut group);
            full.write(partition, &mut writer).map_err(failed)?;
        }
        if is_last {
            return writer.into_inner().map_err(failed);
        }
    }
}

fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}

/// The columns of a row group.
#[derive(Default)]
struct Group {
    bytes: usize,
    times: Vec<i64>,
    sequences: Vec<i64>,
    optional: [Texts; 5],
    properties: Vec<ByteArray>,
    system_properties: Vec<ByteArray>,
    bodies: Vec<ByteArray>,
}

/// A column with nulls: what is there, and for each row whether it is.
#[derive(Default)]
struct Texts {
    values: Vec<ByteArray>,
    levels: Vec<i16>,
}

impl Group {
    fn add(&mut self, kept: Kept) -> io::Result<()> {
        let Kept { mark, message } = kept;
        self.times.push(mark.enqueued.unix_millis());
        self.sequences
            .push(i64::try_from(mark.sequence).map_err(io::Error::other)?);
        for (column, property) in self.optional.iter_mut().zip(OPTIONAL) {
            let value = message.system.get(property);
            column.levels.push(i16::from(value.is_some()));
            column.values.extend(value.map(ByteArray::from));
        }
        let properties = record::application_json(&message)?;
        let system = record::system_json(mark.enqueued, &message)?;
        let Message { body, .. } = message;
        self.bytes += properties.len() + system.len() + body.len() + 64;
        self.properties.push(ByteArray::from(properties.into_bytes()));
        self.system_properties.push(ByteArray::from(system.into_bytes()));
        self.bodies.push(ByteArray::from(body));
        Ok(())
    }

    fn write(self, partition: u16, writer: &mut SerializedFileWriter<File>) -> Result<(), ParquetError> {
        let partitions = vec![i32::from(partition); self.times.len()];
        let mut group = writer.next_row_group()?;
        column::<Int64Type>(&mut group, &self.times, None)?;
        column::<Int32Type>(&mut group, &partitions, None)?;
        column::<Int64Type>(&mut group, &self.sequences, None)?;
        for Texts { values, levels } in &self.optional {
            column::<ByteArrayType>(&mut group, values, Some(levels))?;
        }
        for values in [&self.properties, &self.system_properties, &self.bodies] {
            column::<ByteArrayType>(&mut group, values, None)?;
        }
        group.close().map(drop)
    }
}

/// Writes the next column. `levels` says for each row whether it has a value.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: Option<&Vec<i16>>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns".to_owned()));
    };
    column
        .typed::<T>()
        .write_batch(values, levels.map(Vec::as_slice), None)?;
    column.close()
}
