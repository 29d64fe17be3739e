//! What goes out: frames, one after the other, in one buffer.

use bytes::{BufMut, BytesMut};

use crate::codec::fields::{Composite, write_composite};
use crate::codec::{FrameKind, MIN_MAX_FRAME_SIZE, ProtocolHeader, begin_frame, end_frame};
use crate::performative::{SaslFrame, Transfer};

/// What a transfer's frame has beside its payload, at most: 8 of the frame, 6 of the list, handle, number, tag and format in
/// their longest forms, 7 fields of one byte.
const TRANSFER_OVERHEAD: usize = 8 + 6 + 5 + 5 + 34 + 5 + 7;

/// The output of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    output: BytesMut,
    /// The largest frame that may be sent.
    max_frame_size: u32,
    /// Whether bytes are taken no more: the transport ended.
    pub(crate) ended: bool,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            output: BytesMut::new(),
            max_frame_size: MIN_MAX_FRAME_SIZE,
            ended: false,
        }
    }

    pub(crate) const fn set_max_frame_size(&mut self, max_frame_size: u32) {
        self.max_frame_size = max_frame_size;
    }

    pub(crate) fn len(&self) -> usize {
        self.output.len()
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.output = BytesMut::new();
    }

    pub(crate) fn header(&mut self, header: ProtocolHeader) {
        if !self.ended {
            self.output.put_slice(&header.bytes());
        }
    }

    /// Writes a performative.
    pub(crate) fn send<C: Composite>(&mut self, channel: u16, performative: &C) {
        self.frame(channel, performative, &[]);
    }

    /// Writes as much of a delivery as one frame takes; gives how much that is.
    pub(crate) fn send_part(&mut self, channel: u16, transfer: &mut Transfer, payload: &[u8]) -> usize {
        let largest = usize::try_from(self.max_frame_size).unwrap_or(usize::MAX);
        let room = largest.saturating_sub(TRANSFER_OVERHEAD);
        let part = payload.get(..room).unwrap_or(payload);
        transfer.more = part.len() < payload.len();
        self.frame(channel, transfer, part);
        part.len()
    }

    fn frame<C: Composite>(&mut self, channel: u16, performative: &C, payload: &[u8]) {
        if self.ended {
            return;
        }
        self.output.reserve(TRANSFER_OVERHEAD + payload.len());
        let start = begin_frame(FrameKind::Amqp, channel, &mut self.output);
        write_composite(performative, &mut self.output);
        self.output.put_slice(payload);
        end_frame(start, &mut self.output);
    }

    /// Writes a frame that says nothing but that this side is there.
    pub(crate) fn beat(&mut self) {
        if !self.ended {
            let start = begin_frame(FrameKind::Amqp, 0, &mut self.output);
            end_frame(start, &mut self.output);
        }
    }

    pub(crate) fn sasl(&mut self, frame: &SaslFrame) {
        if !self.ended {
            let start = begin_frame(FrameKind::Sasl, 0, &mut self.output);
            frame.encode(&mut self.output);
            end_frame(start, &mut self.output);
        }
    }

    /// Gives the bytes: an empty `out` is exchanged for the buffer that holds them, otherwise they are appended.
    pub(crate) fn take(&mut self, out: &mut BytesMut) -> bool {
        if self.output.is_empty() {
            return false;
        }
        if out.is_empty() {
            std::mem::swap(out, &mut self.output);
        } else {
            out.extend_from_slice(&self.output);
            self.output.clear();
        }
        true
    }
}
