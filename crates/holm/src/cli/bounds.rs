//! How long and how often a hub offers messages, feedback and notifications of files. Names as `az iot hub create` has them,
//! values with a unit.

use std::time::Duration;

use clap::Args;
use holm_hub::{FileConfig, QueueBounds};

use super::values;

const HEADING: &str = "Cloud-to-device messages, feedback, notifications of files";

/// Bounds of what waits at a hub. Each time is a number with `s`, `m`, `h` or `d`.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Bounds {
    /// How long a message waits for its device, if its sender does not say; 1m to 2d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_to_live)]
    c2d_ttl: Duration,
    /// How long a device holds a message that it has fetched over HTTPS, if it does not say; 5s to 300s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lock)]
    c2d_lock_duration: Duration,
    /// How often a message is delivered to a device that abandons it; 1 to 100.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    c2d_max_delivery_count: u32,
    /// How long feedback is kept for who fetches it; 1m to 2d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_to_live)]
    feedback_ttl: Duration,
    /// How long one who has fetched feedback holds it; 5s to 300s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lock)]
    feedback_lock_duration: Duration,
    /// How often feedback is given to those who abandon it; 1 to 100.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    feedback_max_delivery_count: u32,
    /// How long the notification of a file is kept; 1m to 2d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_to_live)]
    fileupload_notification_ttl: Duration,
    /// How long one who has fetched such a notification holds it; 5s to 300s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lock)]
    fileupload_notification_lock_duration: Duration,
    /// How often it is given to those who abandon it; 1 to 100.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    fileupload_notification_max_delivery_count: u32,
}

impl Bounds {
    /// Of messages to devices.
    pub(crate) const fn c2d(&self) -> QueueBounds {
        QueueBounds {
            time_to_live: self.c2d_ttl,
            lock: self.c2d_lock_duration,
            max_deliveries: self.c2d_max_delivery_count,
        }
    }

    /// Of feedback.
    pub(crate) const fn feedback(&self) -> QueueBounds {
        QueueBounds {
            time_to_live: self.feedback_ttl,
            lock: self.feedback_lock_duration,
            max_deliveries: self.feedback_max_delivery_count,
        }
    }

    /// Of notifications of files.
    pub(crate) const fn file_notifications(&self) -> QueueBounds {
        QueueBounds {
            time_to_live: self.fileupload_notification_ttl,
            lock: self.fileupload_notification_lock_duration,
            max_deliveries: self.fileupload_notification_max_delivery_count,
        }
    }
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let time = values::duration(text)?;
    let is_allowed = QueueBounds::TIME_TO_LIVE.contains(&time);
    is_allowed.then_some(time).ok_or_else(|| "give 1m to 2d".to_owned())
}

fn lock(text: &str) -> Result<Duration, String> {
    let time = values::duration(text)?;
    let is_allowed = QueueBounds::LOCK.contains(&time);
    is_allowed.then_some(time).ok_or_else(|| "give 5s to 300s".to_owned())
}

/// How long an upload may take.
pub(super) fn upload_life(text: &str) -> Result<Duration, String> {
    let time = values::duration(text)?;
    let is_allowed = FileConfig::UPLOAD_LIFE.contains(&time);
    is_allowed.then_some(time).ok_or_else(|| "give 1m to 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_within_the_published_ranges_only() {
        assert_eq!(time_to_live("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(lock("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(upload_life("24h"), Ok(Duration::from_secs(86_400)));
        assert!(upload_life("25h").is_err() && upload_life("59s").is_err());
        for wrong in ["59s", "49h", "1", "h", "-1h"] {
            assert!(
                time_to_live(wrong).is_err_and(|error| error.contains("give ")),
                "{wrong}"
            );
        }
        assert!(lock("4s").is_err() && lock("301s").is_err());
    }

    #[test]
    fn the_defaults_of_the_command_line_are_those_of_the_hub() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            bounds: Bounds,
        }

        let read = <Line as clap::Parser>::parse_from(["hub"]).bounds;

        let all = [read.c2d(), read.feedback(), read.file_notifications()];
        assert_eq!(all, [QueueBounds::default(); 3]);
    }
}
