//! Reads a segment entry by entry and finds the way back after damage.
//!
//! A broken body is one `Damaged` entry: its header says where the next one is. After a broken header the scanner looks at
//! every multiple of 8 for the next valid one; what lies between is one `Gap`.

use std::io;

use super::{ENTRY_VERSION, HEADER_BYTES, Header, Seed, SegmentStart};
use crate::file_system::File;

/// An entry whose header and body are as written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'w> {
    /// Place in the file.
    pub(crate) at: u64,
    pub(crate) kind: u8,
    pub(crate) body: &'w [u8],
    /// Bytes with header and padding.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'w> {
    Entry(Entry<'w>),
    /// The header is valid, the body is not.
    Damaged,
    /// The header is valid and of another version.
    Version(u8),
    /// No header from here to the next valid one, or to the end.
    Gap,
}

/// Walks over the entries of a file between two places.
#[derive(Debug)]
pub(crate) struct Scanner<'f> {
    file: &'f dyn File,
    seed: Seed,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    has_start: bool,
}

const WINDOW_BYTES: usize = 64 << 10;

impl<'f> Scanner<'f> {
    /// `end` must not lie beyond the file's end by more than what a torn write can explain; bytes that are not there end it.
    pub(crate) fn new(file: &'f dyn File, seed: Seed, at: u64, end: u64) -> Self {
        Self {
            file,
            seed,
            at: at.next_multiple_of(8),
            end,
            window: Vec::new(),
            window_at: 0,
            has_start: true,
        }
    }

    /// For a file whose first entry is like any other.
    pub(crate) fn without_start(mut self) -> Self {
        self.has_start = false;
        self
    }

    /// Reads with this buffer, so that a reader keeps its own from one call to the next.
    pub(crate) fn with_window(mut self, window: Vec<u8>) -> Self {
        self.window = window;
        self.window.clear();
        self
    }

    pub(crate) fn into_window(self) -> Vec<u8> {
        self.window
    }

    /// Where the next entry is looked for.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let at = self.at;
        let Some(header) = self.header_at(at)? else {
            return self.gap();
        };
        let size = header.entry_bytes();
        let end = at + HEADER_BYTES as u64 + u64::from(header.length);
        if end > self.end || !self.fill(at, end - at)? {
            return self.gap();
        }
        self.at = (at + size).min(self.end.next_multiple_of(8));
        let entry = self.bytes_at(at, end - at);
        let body = entry.get(HEADER_BYTES..).unwrap_or_default();
        Ok(Some(if header.version != ENTRY_VERSION {
            Found::Version(header.version)
        } else if !header.matches(body) {
            Found::Damaged
        } else {
            Found::Entry(Entry {
                at,
                kind: header.kind,
                body,
                size,
            })
        }))
    }

    /// Skips to the next valid header, or to the end.
    fn gap(&mut self) -> io::Result<Option<Found<'_>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        loop {
            self.at += 8;
            if self.at >= self.end {
                self.at = self.end.next_multiple_of(8);
                return Ok(Some(Found::Gap));
            }
            if let Some(header) = self.header_at(self.at)?
                && self.at + HEADER_BYTES as u64 + u64::from(header.length) <= self.end
            {
                return Ok(Some(Found::Gap));
            }
        }
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let header_bytes = HEADER_BYTES as u64;
        if at + header_bytes > self.end || !self.fill(at, header_bytes)? {
            return Ok(None);
        }
        // The first entry says where it is and can't need to know.
        let seed = if at == 0 && self.has_start {
            Seed::START
        } else {
            self.seed
        };
        Ok(Header::decode(self.bytes_at(at, header_bytes), seed, at))
    }

    fn bytes_at(&self, at: u64, count: u64) -> &[u8] {
        let range = usize::try_from(at.wrapping_sub(self.window_at))
            .ok()
            .zip(usize::try_from(count).ok())
            .and_then(|(start, count)| Some(start..start.checked_add(count)?));
        range.and_then(|range| self.window.get(range)).unwrap_or_default()
    }

    /// Makes the window hold `count` bytes from `at`; `false` if the file is too short. The caller has checked that they lie
    /// before `end`, so memory is bounded by the file's length.
    fn fill(&mut self, at: u64, count: u64) -> io::Result<bool> {
        let window_end = self.window_at + self.window.len() as u64;
        if at >= self.window_at && at + count <= window_end {
            return Ok(true);
        }
        if at >= self.window_at && at < window_end {
            let kept = usize::try_from(at - self.window_at)
                .unwrap_or(usize::MAX)
                .min(self.window.len());
            self.window.drain(..kept);
        } else {
            self.window.clear();
        }
        self.window_at = at;
        let wanted = count.max(WINDOW_BYTES as u64).min(self.end.saturating_sub(at));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut filled = self.window.len();
        self.window.resize(wanted.max(filled), 0);
        while filled < self.window.len() {
            let place = self.window.get_mut(filled..).unwrap_or_default();
            match self.file.read_at(place, at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        self.window.truncate(filled);
        Ok(filled as u64 >= count)
    }
}

/// Reads the first entry of a segment; `None` if it is damaged.
pub(crate) fn read_start(file: &dyn File) -> io::Result<Option<SegmentStart>> {
    let mut bytes = [0; 64];
    let mut filled = 0;
    while let Some(place) = bytes.get_mut(filled..).filter(|place| !place.is_empty()) {
        match file.read_at(place, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(SegmentStart::decode(&bytes))
}
