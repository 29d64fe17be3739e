//! How what a client sends gets into the node and is acknowledged, for every protocol: by way of an entrance, against receipts.

mod entrance;
mod receipts;

pub(crate) use entrance::{Entrance, LAST_ROOM};
pub(crate) use receipts::Receipts;
