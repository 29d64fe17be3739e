//! The lines of one module's log that a filter lets through, and what they become: text or JSON, plain or compressed.

use std::collections::VecDeque;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use holm_model::ModuleId;
use holm_runtime::{LogStream, LogsOptions, Tail};
use serde_json::json;

use super::lines::{Line, Lines};
use super::request::{Content, Encoding, Filter};

/// What is kept at most for a tail that is applied after the other filters, in bytes; older lines go first.
const LARGEST_TAIL: usize = 4 * 1024 * 1024;

/// Reads the lines of one module.
pub(super) struct Reader {
    log: LogStream,
    lines: Option<Lines>,
    filter: Filter,
    /// The last lines, where the tail counts after the other filters.
    tail: Option<VecDeque<Line>>,
    tail_bytes: usize,
}

impl Reader {
    /// What is to be asked of the log. As published: the tail counts before the other filters, but after them when both times
    /// are given, too.
    pub(super) fn options(filter: &Filter, content: Content) -> LogsOptions {
        LogsOptions {
            follow: false,
            tail: match filter.tail.filter(|_| !counts_after(filter)) {
                Some(lines) => Tail::Lines(lines),
                None => Tail::All,
            },
            since: filter.since,
            until: filter.until,
            timestamps: content == Content::Json,
        }
    }

    /// Of a log that was opened with these options.
    pub(super) fn new(log: LogStream, filter: Filter, content: Content) -> Self {
        Self {
            log,
            lines: Some(Lines::new(content == Content::Json)),
            tail: counts_after(&filter).then(VecDeque::new),
            filter,
            tail_bytes: 0,
        }
    }

    /// Some more lines; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<Line>>> {
        let Some(mut lines) = self.lines.take() else {
            return Ok(None);
        };
        let (read, is_end) = match self.log.next().await {
            Some(bytes) => {
                let read = lines.take(&bytes?);
                self.lines = Some(lines);
                (read, false)
            }
            None => (lines.finish(), true),
        };
        let passed = read.into_iter().filter(|line| passes(&self.filter, line));
        let Some(tail) = &mut self.tail else {
            return Ok(Some(passed.collect()));
        };
        let most = usize::try_from(self.filter.tail.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for line in passed {
            self.tail_bytes += line.raw.len();
            tail.push_back(line);
            while tail.len() > most || (self.tail_bytes > LARGEST_TAIL && tail.len() > 1) {
                let gone = tail.pop_front().map_or(0, |line| line.raw.len());
                self.tail_bytes = self.tail_bytes.saturating_sub(gone);
            }
        }
        Ok(Some(if is_end {
            std::mem::take(tail).into()
        } else {
            Vec::new()
        }))
    }
}

const fn counts_after(filter: &Filter) -> bool {
    filter.tail.is_some() && filter.since.is_some() && filter.until.is_some()
}

fn passes(filter: &Filter, line: &Line) -> bool {
    let (level, _, text) = line.parts();
    filter.level.is_none_or(|wanted| wanted == level)
        && filter.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// Whose lines they are, for JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) hub: &'a str,
    pub(super) device: &'a str,
    pub(super) module: &'a ModuleId,
}

enum Out {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// Makes bytes of lines.
pub(super) struct Encoder {
    out: Out,
    content: Content,
    /// Whether a line was written, so that the next one follows a comma.
    has_lines: bool,
}

impl Encoder {
    pub(super) fn new(content: Content, encoding: Encoding) -> io::Result<Self> {
        let out = match encoding {
            Encoding::None => Out::Plain(Vec::new()),
            Encoding::Gzip => Out::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        };
        let mut encoder = Self {
            out,
            content,
            has_lines: false,
        };
        if content == Content::Json {
            encoder.write(b"[")?;
        }
        Ok(encoder)
    }

    pub(super) fn line(&mut self, line: &Line, of: Origin<'_>) -> io::Result<()> {
        let comma: &[u8] = if self.has_lines { b"," } else { b"" };
        self.has_lines = true;
        match self.content {
            Content::Text => {
                self.write(line.raw.as_bytes())?;
                self.write(b"\n")
            }
            Content::Json => {
                let (level, time, text) = line.parts();
                let written = line.written.map(|time| time.to_string());
                let value = json!({
                    "iothub": of.hub, "device": of.device, "id": of.module,
                    "stream": if line.is_error { "stderr" } else { "stdout" },
                    "loglevel": level, "text": text, "timestamp": time.map(str::to_owned).or(written),
                });
                self.write(comma)?;
                self.write(value.to_string().as_bytes())
            }
        }
    }

    /// What is ready to be sent; compressed bytes come late.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match &mut self.out {
            Out::Plain(bytes) => std::mem::take(bytes),
            Out::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    /// How much is ready to be sent.
    pub(super) fn ready(&self) -> usize {
        match &self.out {
            Out::Plain(bytes) => bytes.len(),
            Out::Gzip(encoder) => encoder.get_ref().len(),
        }
    }

    /// The rest.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.content == Content::Json {
            self.write(b"]")?;
        }
        match self.out {
            Out::Plain(bytes) => Ok(bytes),
            Out::Gzip(encoder) => encoder.finish(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.out {
            Out::Plain(out) => out.write_all(bytes),
            Out::Gzip(out) => out.write_all(bytes),
        }
    }
}
