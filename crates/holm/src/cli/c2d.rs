//! Cloud-to-device messages on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::values::{self, Property};
use super::{DeviceArgument, HubAccess};

const SEND_EXAMPLES: &str = "Examples:\n  \
    holm c2d send --device pump 'open the valve'\n  \
    holm c2d send --device pump --property level=2 --expires-in 10m --wait 60 'open the valve'\n  \
    holm c2d send --device pump --content-type application/json --file order.json\n\
    \n\
    With --wait the exit code is 1 unless the device has completed the message.";

const PURGE_EXAMPLES: &str = "Example:\n  holm c2d purge --device pump";

const FEEDBACK_EXAMPLES: &str = "Examples:\n  \
    holm c2d feedback                          take what there is and what comes, until it is stopped\n  \
    holm c2d feedback --timeout 0 --json       take what is due now, as JSON lines\n  \
    holm c2d feedback --peek --device pump     look, and leave all of it to the back end\n\
    \n\
    Feedback is given out once. It comes in batches, 15 s after the first of one; with --peek at once.";

#[derive(Debug, Subcommand)]
pub(crate) enum C2d {
    /// Send a message to a device.
    #[command(after_help = SEND_EXAMPLES)]
    Send(Box<Send>),
    /// Throw away the messages that wait for a device. Their senders are told, if they asked for feedback.
    #[command(after_help = PURGE_EXAMPLES)]
    Purge {
        #[command(flatten)]
        device: DeviceArgument,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Take feedback: what became of messages whose senders asked. Each record is taken from the queue that all back ends share.
    #[command(after_help = FEEDBACK_EXAMPLES)]
    Feedback(Feedback),
}

/// Which feedback the sender of a message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ack {
    /// None.
    None,
    /// When the device has completed it.
    Positive,
    /// When it never will: expired, rejected, abandoned too often, purged.
    Negative,
    /// In either case.
    Full,
}

impl Ack {
    /// The published word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("body").args(["text", "file"]).required(true))]
pub(crate) struct Send {
    /// The device.
    #[arg(long, short, value_parser = values::id)]
    pub(crate) device: String,
    /// Its text; `-` reads it from standard input.
    pub(crate) text: Option<String>,
    /// A file that is its body.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A property, as name=value; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = values::property)]
    pub(crate) properties: Vec<Property>,
    /// Its message id [with --ack or --wait else a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) message_id: Option<String>,
    /// The id of what it belongs to.
    #[arg(long, value_name = "ID")]
    pub(crate) correlation_id: Option<String>,
    /// Who sends it.
    #[arg(long, value_name = "ID")]
    pub(crate) user_id: Option<String>,
    /// What its body is, such as application/json.
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// How its text is encoded, such as utf-8.
    #[arg(long, value_name = "ENCODING")]
    pub(crate) content_encoding: Option<String>,
    /// How long it waits for the device: a number with s, m, h or d, two days at most [else what the hub has, an hour]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) expires_in: Option<Duration>,
    /// Which feedback is wanted.
    #[arg(long, value_enum)]
    pub(crate) ack: Option<Ack>,
    /// Wait so many seconds for feedback, and print it. Nothing is taken from others who read feedback.
    #[arg(long, value_name = "SECONDS", conflicts_with = "ack", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[derive(Debug, Args)]
pub(crate) struct Feedback {
    /// Only look, also at what is not due yet: nothing is taken.
    #[arg(long)]
    pub(crate) peek: bool,
    /// Only on messages to this device; with --peek.
    #[arg(long, short, requires = "peek", value_parser = values::id)]
    pub(crate) device: Option<String>,
    /// Stop when nothing has come for so many seconds; 0 shows what is there.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Stop after so many records; a batch that was begun is shown to its end.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
