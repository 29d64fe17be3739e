//! Targets of what devices send a hub over HTTPS: batches of events, and lists of blocks.

use holm_gateway::http::device::telemetry;
use holm_hub::blobs::is_block_list;
use holm_hub::routing::endpoints::hears_nats_the_same;

/// A batch of events: what is read has no more bytes than it was made of.
pub(super) fn event_batch(bytes: &[u8]) {
    if let Ok(messages) = telemetry::batch(bytes) {
        let bodies: usize = messages.iter().map(|message| message.body.len()).sum();
        assert!(!messages.is_empty() && bodies <= bytes.len(), "more than came");
    }
}

/// The list of blocks that makes a blob.
pub(super) fn block_list(bytes: &[u8]) {
    let known = is_block_list(bytes);
    let mut spaced = bytes.to_vec();
    spaced.extend_from_slice(b"\n");
    assert_eq!(known, is_block_list(&spaced), "a line end behind it changes it");
}

/// A session answers the same and never panics, in whatever pieces the bytes come.
pub(super) fn nats_client(bytes: &[u8]) {
    assert!(hears_nats_the_same(bytes), "pieces make a difference");
}
