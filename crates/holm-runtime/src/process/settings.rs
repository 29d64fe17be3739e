//! Values of create options that have a notation of their own: signals, resource limits, sizes.

use rustix::process::{Resource, Signal};

/// The signals by their names without `SIG`.
const SIGNALS: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("WINCH", Signal::WINCH),
    ("PWR", Signal::POWER),
];

/// The number of a signal given as `SIGINT`, `INT` or `2`.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Signal::from_named_raw(number).map(Signal::as_raw);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let found = SIGNALS.iter().find(|(known, _)| *known == name);
    found.map(|(_, signal)| signal.as_raw())
}

/// The resource that Docker calls by this name in `Ulimits`.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// The smallest log file that is accepted, in bytes: a few lines must fit.
const SMALLEST_LOG_BYTES: u64 = 4096;

/// A size such as `10m`, `64k`, `1g` or `5000`, by powers of 1024, in bytes; `None` when it is none or too small for a log.
pub(crate) fn byte_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match lower.chars().last()? {
        'k' => (lower.strip_suffix('k')?, 1 << 10),
        'm' => (lower.strip_suffix('m')?, 1 << 20),
        'g' => (lower.strip_suffix('g')?, 1 << 30),
        _ => (lower, 1),
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (bytes >= SMALLEST_LOG_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for text in ["SIGINT", "INT", "int", "2"] {
            assert_eq!(signal_number(text), Some(2), "{text}");
        }
        assert_eq!(signal_number("SIGNAL"), None);
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_number("99"), None);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(byte_size("10m"), Some(10 * 1024 * 1024));
        assert_eq!(byte_size("64KB"), Some(65536));
        assert_eq!(byte_size("5000"), Some(5000));
        assert_eq!(byte_size("1"), None);
        assert_eq!(byte_size("m"), None);
        assert_eq!(byte_size("99999999999999999999g"), None);
    }
}
