//! How what a client sends gets into the node and is acknowledged, for every protocol: by way of an entrance, against receipts.

mod entrance;
mod receipts;

pub(crate) use entrance::{Entrance, LAST_ROOM};
pub(crate) use receipts::Receipts;

/// The most messages of a batch of 256 KiB, the published size: what a client makes the node do and store beyond the bytes that it
/// sends stays bounded. Below 32 bytes a message is smaller than what is stored beside it.
pub(crate) const MAX_BATCH_MESSAGES: usize = 8192;
