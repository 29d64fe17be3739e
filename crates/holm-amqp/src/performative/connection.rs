//! Open and close, begin and end.

use crate::codec::fields::composite;
use crate::condition::AmqpError;
use crate::map::Fields;
use crate::text::{Symbol, Text};

composite! {
    /// The first frame of each side. AMQP 1.0, part 2, 2.7.1.
    pub Open = 0x10, "open" {
        /// Who the sender is.
        container_id: Text = "container-id",
        /// Whom the sender wants to talk to.
        hostname: Option<Text> = "hostname",
        /// The largest frame that the sender takes, in bytes.
        max_frame_size: u32 = "max-frame-size" or u32::MAX,
        /// The highest channel that the sender takes.
        channel_max: u16 = "channel-max" or u16::MAX,
        /// How long the sender waits for a frame, in milliseconds; none for ever.
        idle_time_out: Option<u32> = "idle-time-out",
        /// Languages for texts.
        outgoing_locales: Vec<Symbol> = "outgoing-locales",
        /// Languages for texts.
        incoming_locales: Vec<Symbol> = "incoming-locales",
        /// Extensions that the sender has.
        offered_capabilities: Vec<Symbol> = "offered-capabilities",
        /// Extensions that the sender would use.
        desired_capabilities: Vec<Symbol> = "desired-capabilities",
        /// More about the sender.
        properties: Fields = "properties",
    }
}

composite! {
    /// Opens one direction of a session. AMQP 1.0, part 2, 2.7.2.
    pub Begin = 0x11, "begin" {
        /// In an answer, the channel of the begin that it answers.
        remote_channel: Option<u16> = "remote-channel",
        /// The number of the sender's first transfer.
        next_outgoing_id: u32 = "next-outgoing-id",
        /// How many transfers the sender takes at present.
        incoming_window: u32 = "incoming-window",
        /// How many transfers the sender may send at present.
        outgoing_window: u32 = "outgoing-window",
        /// The highest handle that the sender takes.
        handle_max: u32 = "handle-max" or u32::MAX,
        /// Extensions that the sender has.
        offered_capabilities: Vec<Symbol> = "offered-capabilities",
        /// Extensions that the sender would use.
        desired_capabilities: Vec<Symbol> = "desired-capabilities",
        /// More about the session.
        properties: Fields = "properties",
    }
}

composite! {
    /// Ends one direction of a session. AMQP 1.0, part 2, 2.7.8.
    pub End = 0x17, "end" {
        /// Why, if not in order.
        error: Option<Box<AmqpError>> = "error",
    }
}

composite! {
    /// The last frame of each side. AMQP 1.0, part 2, 2.7.9.
    pub Close = 0x18, "close" {
        /// Why, if not in order.
        error: Option<Box<AmqpError>> = "error",
    }
}
