//! Targets of `holm-amqp`: its own checks of what it promises.

use holm_amqp::testing;

/// The most bytes of a frame here.
const MAX_FRAME: u32 = 32 * 1024;

pub(super) fn frames(bytes: &[u8]) {
    testing::check_frames(bytes, MAX_FRAME);
}

pub(super) fn message(bytes: &[u8]) {
    testing::check_value(bytes);
    testing::check_message(bytes);
}

pub(super) fn server(bytes: &[u8]) {
    testing::check_server(bytes);
}

pub(super) fn client(bytes: &[u8]) {
    testing::check_client(bytes);
}

/// Long stories find no more than short ones, and take long.
pub(super) fn operations(bytes: &[u8]) {
    testing::check_operations(bytes.get(..2000).unwrap_or(bytes));
}
