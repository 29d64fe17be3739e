//! From a module's framed output to lines, and what a line says of itself.
//!
//! ```text
//! <level> yyyy-MM-dd HH:mm:ss.fff zzz text        the form that the published modules write; each part may be missing
//! ```
//!
//! Source: `edge-agent.md` §2.6.

use bytes::{Buf, BytesMut};
use holm_model::Timestamp;

/// A line longer than this is given in pieces, so that a module that never ends a line costs no memory.
const LONGEST_LINE: usize = 64 * 1024;
/// The severity of a line that names none: informational.
const USUAL_LEVEL: u8 = 6;
/// The head of a frame: stream, three zeros, length.
const FRAME_HEAD: usize = 8;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) is_error: bool,
    /// When it was written, as its runtime noted.
    pub(super) written: Option<Timestamp>,
    /// As written, without the line's end.
    pub(super) raw: String,
}

impl Line {
    /// Its severity, its own time, and the text after them.
    pub(super) fn parts(&self) -> (u8, Option<&str>, &str) {
        let (level, rest) = level(&self.raw);
        let (time, text) = time(rest);
        (level, time, text)
    }
}

fn level(raw: &str) -> (u8, &str) {
    let found = raw.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let level = found.and_then(|(digit, rest)| Some((digit.parse::<u8>().ok()?, rest)));
    match level {
        Some((level @ 0..=7, rest)) => (level, rest.trim_start()),
        _ => (USUAL_LEVEL, raw),
    }
}

/// `2026-01-02 03:04:05.678 +00:00 ` and the rest.
fn time(text: &str) -> (Option<&str>, &str) {
    const FORM: &[u8] = b"0000-00-00 00:00:00.000 +00:00";
    let Some((head, rest)) = text.split_at_checked(FORM.len()) else {
        return (None, text);
    };
    let fits = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'+' => byte == b'+' || byte == b'-',
        other => byte == *other,
    };
    if head.bytes().zip(FORM).all(fits) && rest.starts_with(' ') {
        (Some(head), rest.trim_start())
    } else {
        (None, text)
    }
}

/// Puts lines together from frames.
#[derive(Debug, Default)]
pub(super) struct Lines {
    input: BytesMut,
    /// The stream of the frame that has begun, and what is left of it.
    is_error: bool,
    frame_left: usize,
    /// The line that has begun, of standard output and of standard error.
    open: [Vec<u8>; 2],
    has_times: bool,
}

impl Lines {
    /// `has_times`: whether each line begins with the time that its runtime noted.
    pub(super) fn new(has_times: bool) -> Self {
        Self {
            has_times,
            ..Self::default()
        }
    }

    /// Takes bytes in and gives the lines that they complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        self.input.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            if self.frame_left == 0 {
                let Some((is_error, length)) = self.head() else {
                    return lines;
                };
                self.input.advance(FRAME_HEAD);
                (self.is_error, self.frame_left) = (is_error, length);
                continue;
            }
            // A frame may say that it is long: what is there of it is used at once.
            let length = self.frame_left.min(self.input.len());
            if length == 0 {
                return lines;
            }
            let payload = self.input.split_to(length);
            self.frame_left -= length;
            self.frame(self.is_error, &payload, &mut lines);
        }
    }

    /// The lines that were not ended.
    pub(super) fn finish(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for is_error in [false, true] {
            self.end(is_error, &mut lines);
        }
        lines
    }

    fn head(&self) -> Option<(bool, usize)> {
        let head: [u8; FRAME_HEAD] = self.input.get(..FRAME_HEAD)?.try_into().ok()?;
        let [stream, _, _, _, a, b, c, d] = head;
        Some((stream == 2, usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?))
    }

    fn frame(&mut self, is_error: bool, payload: &[u8], lines: &mut Vec<Line>) {
        for piece in payload.split_inclusive(|byte| *byte == b'\n') {
            let has_ended = piece.ends_with(b"\n");
            let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
            for part in piece.chunks(LONGEST_LINE) {
                let open = &mut self.open[usize::from(is_error)];
                if open.len() + part.len() > LONGEST_LINE {
                    self.end(is_error, lines);
                }
                self.open[usize::from(is_error)].extend_from_slice(part);
            }
            if has_ended {
                // An empty line is one, too.
                lines.push(self.line(is_error));
            }
        }
    }

    fn end(&mut self, is_error: bool, lines: &mut Vec<Line>) {
        if !self.open[usize::from(is_error)].is_empty() {
            lines.push(self.line(is_error));
        }
    }

    fn line(&mut self, is_error: bool) -> Line {
        let bytes = std::mem::take(&mut self.open[usize::from(is_error)]);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let noted = text.split_once(' ').filter(|_| self.has_times);
        let noted = noted.and_then(|(time, rest)| Some((Timestamp::parse(time)?, rest)));
        Line {
            is_error,
            written: noted.map(|(time, _)| time),
            raw: noted.map_or(text, |(_, rest)| rest).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, payload].concat()
    }

    #[test]
    fn a_line_is_read_in_the_form_of_the_published_modules_and_in_any_other() {
        let parts = |raw: &str| {
            let line = Line {
                is_error: false,
                written: None,
                raw: raw.to_owned(),
            };
            let (level, time, text) = line.parts();
            (level, time.map(str::to_owned), text.to_owned())
        };
        let time = Some("2026-01-02 03:04:05.678 +00:00".to_owned());

        assert_eq!(
            parts("<3> 2026-01-02 03:04:05.678 +00:00 it broke"),
            (3, time, "it broke".to_owned())
        );
        assert_eq!(parts("<4> no time"), (4, None, "no time".to_owned()));
        assert_eq!(parts("plain"), (6, None, "plain".to_owned()));
        assert_eq!(parts("<9> no level"), (6, None, "<9> no level".to_owned()));
        assert_eq!(parts("<é> ünï"), (6, None, "<é> ünï".to_owned()));
    }

    #[test]
    fn times_of_the_runtime_are_taken_off() {
        let mut lines = Lines::new(true);

        let taken = lines.take(&frame(2, b"2026-01-02T03:04:05.123456789Z oh no\n"));

        assert_eq!(taken[0].raw, "oh no");
        assert!(taken[0].is_error && taken[0].written.is_some());
    }

    #[test]
    fn a_line_without_end_is_given_in_bounded_pieces() {
        let mut lines = Lines::new(false);

        let taken = lines.take(&frame(1, &vec![b'x'; 3 * LONGEST_LINE]));
        let rest = lines.finish();

        assert!(taken.iter().chain(&rest).all(|line| line.raw.len() <= LONGEST_LINE));
        assert_eq!(
            taken.iter().chain(&rest).map(|line| line.raw.len()).sum::<usize>(),
            3 * LONGEST_LINE
        );
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_bytes_come(texts in prop::collection::vec("[a-z\n]{0,12}", 0..8), size in 1_usize..9) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(1, text.as_bytes())).collect();

            let mut whole = Lines::new(false);
            let mut expected = whole.take(&bytes);
            expected.extend(whole.finish());
            let mut lines = Lines::new(false);
            let mut given: Vec<Line> = bytes.chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            given.extend(lines.finish());

            prop_assert_eq!(given, expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut lines = Lines::new(true);
            drop(lines.take(&bytes));
            drop(lines.finish());
        }
    }
}
