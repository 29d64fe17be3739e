//! How a client wrote the names of a request's headers. hyper gives them in lower case and keeps their spelling to itself; a name
//! that ends with what a user chose needs it.
//!
//! ```text
//!   Request --line's end--> Name --':'--> Value --line's end--> Name --empty line--> Over     what follows is no head
//! ```
//!
//! It is read beside hyper, which judges what is a head: nothing here is refused, and a name that hyper did not find is never asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use super::server::MAX_HEAD;

/// The names of a request's headers as its client wrote them, a line each, in their order. In the extensions of a request.
///
/// A request that was sent before the one before it was answered may come without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling(String);

impl Spelling {
    /// The headers of a request, with their names as its client wrote them as far as that is known; else in lower case.
    pub fn headers(head: &Parts) -> impl Iterator<Item = (&str, &HeaderValue)> {
        let names = head.extensions.get::<Self>().map_or("", |spelling| spelling.0.as_str());
        let (mut before, mut nth) = (None, 0);
        // Values of one name come one behind the other, in their order.
        head.headers.iter().map(move |(name, value)| {
            nth = if before == Some(name) { nth + 1 } else { 0 };
            before = Some(name);
            let mut same = names.lines().filter(|line| line.eq_ignore_ascii_case(name.as_str()));
            (same.nth(nth).unwrap_or(name.as_str()), value)
        })
    }
}

/// Reads names out of the bytes of heads, as they come.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    place: Place,
    /// Names that are complete, each with its line's end, and what there is of the next.
    names: Vec<u8>,
    /// Where the last one begins.
    last: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the line of the request, or in empty lines before it.
    #[default]
    Request,
    /// At the beginning of a line, or within the name there.
    Name,
    /// Behind the name.
    Value,
    /// Behind the head.
    Over,
}

impl Names {
    /// Reads on.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut reading = self.lock();
        for byte in bytes {
            if reading.place == Place::Over {
                return;
            }
            reading.read(*byte);
        }
    }

    /// What was read of the head that is complete; the next one begins.
    pub(super) fn take(&self) -> Spelling {
        let mut reading = std::mem::take(&mut *self.lock());
        reading.names.truncate(reading.last);
        // hyper takes no names but ASCII.
        Spelling(String::from_utf8(reading.names).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        // Held while bytes are looked at, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn read(&mut self, byte: u8) {
        match (self.place, byte) {
            // The line's beginning counts as a name until its end: an empty one is none.
            (Place::Request, b'\n') if self.names.is_empty() => {}
            (Place::Request, b'\n') => {
                self.names.clear();
                self.place = Place::Name;
            }
            (Place::Request, byte) => {
                if self.names.is_empty() && byte != b'\r' {
                    self.names.push(byte);
                }
            }
            // hyper refuses a head of this size; what is read as one here may be none.
            (Place::Name, _) if self.names.len() >= MAX_HEAD => self.place = Place::Over,
            (Place::Name, b':') => {
                self.names.push(b'\n');
                self.last = self.names.len();
                self.place = Place::Value;
            }
            (Place::Name, b'\n') if self.names.len() == self.last => self.place = Place::Over,
            // No header: hyper refuses it.
            (Place::Name, b'\n') => self.names.truncate(self.last),
            (Place::Name, b'\r') | (Place::Over, _) => {}
            (Place::Name, byte) => self.names.push(byte),
            (Place::Value, b'\n') => self.place = Place::Name,
            (Place::Value, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn read(pieces: &[&str]) -> String {
        let names = Names::default();
        for piece in pieces {
            names.read(piece.as_bytes());
        }
        names.take().0
    }

    #[test]
    fn names_are_read_from_a_head_whole_or_in_pieces_and_from_nothing_behind_it() {
        let head = "\r\nPOST /A:b HTTP/1.1\r\nHost: h:1\r\nIoT-App-Level: High: x\r\n\r\nBody: no\r\n\r\n";
        let letters: Vec<String> = head.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();

        let (whole, in_pieces) = (read(&[head]), read(&letters));

        assert_eq!(whole, "Host\nIoT-App-Level\n");
        assert_eq!(in_pieces, whole);
        assert_eq!(read(&["GET / HTTP/1.1\nA:1\nBroken\nB:2\nHal"]), "A\nB\n");
    }

    #[test]
    fn what_is_no_head_is_kept_within_a_bound() {
        let names = Names::default();
        let many = Names::default();
        names.read(b"GET / HTTP/1.1\r\n");
        many.read(b"GET / HTTP/1.1\r\n");

        for _ in 0..3 {
            names.read(&vec![b'x'; MAX_HEAD]);
            many.read(&b":\n".repeat(MAX_HEAD));
        }

        assert!(names.lock().names.capacity() <= 2 * MAX_HEAD && many.lock().names.capacity() <= 2 * MAX_HEAD);
        assert_eq!(names.take(), Spelling::default());
    }

    #[test]
    fn a_header_has_the_name_its_client_wrote_each_of_several_its_own() {
        let request = Request::builder()
            .header("x-level", "1")
            .header("host", "h")
            .header("x-level", "2")
            .header("x-plain", "3")
            .extension(Spelling("X-Level\nHost\nX-LEVEL\n".to_owned()));
        let (head, ()) = request.body(()).unwrap().into_parts();

        let mut headers: Vec<(&str, &str)> = Spelling::headers(&head)
            .map(|(name, value)| (name, value.to_str().unwrap()))
            .collect();
        headers.sort_unstable_by_key(|(_, value)| *value);

        let expected = [("X-Level", "1"), ("X-LEVEL", "2"), ("x-plain", "3"), ("Host", "h")];
        assert_eq!(headers, expected);
    }
}
