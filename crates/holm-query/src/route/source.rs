//! Where a message comes from, and which paths of routes mean it. Source: `edge-broker.md` §2.2.
//!
//! ```text
//!   device            /messages/
//!   module            /messages/modules/{module}/
//!   module's output   /messages/modules/{module}/outputs/{output}/
//!   twin change       /twinChangeNotifications/
//! ```
//!
//! A route's path means all that begins with it, part by part and without case (of ASCII letters): trailing `/` and `*` go,
//! and one `/` comes. A `*` elsewhere is a character like any other.

use std::fmt;

use holm_model::{Identity, Message, ModuleId, SystemProperty};

/// Where a message comes from, as routes see it. The device of a module is no part of it; routes that care compare
/// `$connectionDeviceId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSource<'m> {
    /// A device sent it.
    DeviceTelemetry,
    /// A module sent it.
    ModuleOutput {
        /// The module.
        module: &'m ModuleId,
        /// The output that it named, if it named one.
        output: Option<&'m str>,
    },
    /// The node made it: reported properties changed.
    TwinChange,
}

/// The path of a route, ready to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePattern(Box<str>);

const MESSAGES: &str = "/messages/";
const MODULES: &str = "modules/";
const TWIN_CHANGES: &str = "/twinChangeNotifications/";

impl<'m> MessageSource<'m> {
    /// The source of a message that somebody sent; an empty output name is none.
    #[must_use]
    pub fn of(sender: &'m Identity, message: &'m Message) -> Self {
        let output = message.system.get(SystemProperty::OutputName);
        match &sender.module {
            None => Self::DeviceTelemetry,
            Some(module) => Self::ModuleOutput {
                module,
                output: output.filter(|name| !name.is_empty()),
            },
        }
    }

    /// Whether a route with this path looks at the message.
    #[must_use]
    pub fn matches(&self, pattern: &SourcePattern) -> bool {
        let mut rest = pattern.0.as_bytes();
        for part in self.parts() {
            let shorter = part.len().min(rest.len());
            let ((wanted, behind), here) = (rest.split_at(shorter), part.as_bytes().split_at(shorter).0);
            if !wanted.eq_ignore_ascii_case(here) {
                return false;
            }
            rest = behind;
        }
        rest.is_empty()
    }

    /// The pieces of the source path, in order.
    fn parts(&self) -> [&'m str; 7] {
        match self {
            Self::DeviceTelemetry => [MESSAGES, "", "", "", "", "", ""],
            Self::TwinChange => [TWIN_CHANGES, "", "", "", "", "", ""],
            Self::ModuleOutput { module, output: None } => [MESSAGES, MODULES, module.as_str(), "/", "", "", ""],
            Self::ModuleOutput {
                module,
                output: Some(output),
            } => [MESSAGES, MODULES, module.as_str(), "/", "outputs/", output, "/"],
        }
    }
}

/// The source path, such as `/messages/modules/sensor/outputs/alerts/`.
impl fmt::Display for MessageSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().iter().try_for_each(|part| f.write_str(part))
    }
}

impl SourcePattern {
    /// The pattern of a route's path.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let kept = path.trim_end_matches(['*', '/']);
        Self(format!("{kept}/").into())
    }

    /// The output that it spells out; `None` where it ends before one.
    pub(crate) fn output(&self) -> Option<&str> {
        let mut parts = self.0.trim_matches('/').splitn(5, '/');
        let words = [parts.next()?, parts.next()?, parts.nth(1)?];
        let is_output = ["messages", "modules", "outputs"]
            .iter()
            .zip(words)
            .all(|(word, part)| word.eq_ignore_ascii_case(part));
        parts.next().filter(|_| is_output)
    }

    /// Whether there can be a module whose messages it means.
    pub(crate) fn may_mean_modules(&self) -> bool {
        let all = [MESSAGES, MODULES].concat();
        let shorter = all.len().min(self.0.len());
        let (pattern, modules) = (
            self.0.as_bytes().split_at(shorter).0,
            all.as_bytes().split_at(shorter).0,
        );
        pattern.eq_ignore_ascii_case(modules)
    }
}
