//! AMQP 1.0 byte by byte: frames that no library would send.
//!
//! ```text
//! let mut client = Client::new(stream);
//! client.send(HEADER); client.send(&frame(0, &open()));      what is sent is what is said
//! client.frame()                                             channel and code of the next frame that came
//! client.end()                                               all frames until the connection is closed
//! ```

use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::{Context as _, Result};

use super::tls::Stream;

/// The header of AMQP without SASL.
pub const HEADER: &[u8] = b"AMQP\0\x01\0\0";
/// The header of SASL.
pub const SASL: &[u8] = b"AMQP\x03\x01\0\0";
/// The header of TLS within the connection.
pub const TLS: &[u8] = b"AMQP\x02\x01\0\0";

/// Codes of what comes in frames.
pub mod code {
    #![allow(missing_docs, reason = "the names of the standard")]
    pub const BEGIN: u8 = 0x11;
    pub const ATTACH: u8 = 0x12;
    pub const FLOW: u8 = 0x13;
    pub const DETACH: u8 = 0x16;
    pub const END: u8 = 0x17;
    pub const CLOSE: u8 = 0x18;
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its channel.
    pub channel: u16,
    /// What is in it; none when it is empty.
    pub code: Option<u8>,
    /// What follows its type.
    pub body: Vec<u8>,
}

impl Frame {
    /// Whether a text is in it.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// A connection on which nothing is said that the test does not say.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Client {
    /// A client on an open stream.
    #[must_use]
    pub const fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection has ended, or nobody reads it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        Ok(())
    }

    /// The 8 bytes of a header.
    ///
    /// # Errors
    /// When they don't come.
    pub fn header(&mut self) -> Result<Vec<u8>> {
        self.take(8)?.context("the connection ended before the header")
    }

    /// The next frame; none when the connection has ended.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn frame(&mut self) -> Result<Option<Frame>> {
        let Some(head) = self.take(8)? else { return Ok(None) };
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let rest = self.take(usize::try_from(size)?.saturating_sub(8))?;
        let body = rest.context("the connection ended within a frame")?;
        Ok(Some(Frame {
            channel: u16::from_be_bytes([head[6], head[7]]),
            code: body.get(2).copied(),
            body,
        }))
    }

    /// The next frame of a kind.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn next(&mut self, code: u8) -> Result<Frame> {
        loop {
            let frame = self.frame()?.context("the connection ended")?;
            if frame.code == Some(code) {
                return Ok(frame);
            }
        }
    }

    /// What comes until the connection is closed.
    ///
    /// # Errors
    /// When it is not.
    pub fn end(&mut self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn take(&mut self, count: usize) -> Result<Option<Vec<u8>>> {
        let mut chunk = [0; 16 * 1024];
        while self.buffer.len() < count {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("nothing came"),
            }
        }
        Ok(Some(self.buffer.drain(..count).collect()))
    }
}

/// A frame.
///
/// # Panics
/// When it is larger than a frame can be.
#[must_use]
pub fn frame(channel: u16, body: &[u8]) -> Vec<u8> {
    frame_of(0, channel, body)
}

/// A frame of SASL.
#[must_use]
pub fn sasl_frame(body: &[u8]) -> Vec<u8> {
    frame_of(1, 0, body)
}

fn frame_of(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).expect("a frame of a test is small");
    let mut frame = size.to_be_bytes().to_vec();
    frame.extend([2, kind]);
    frame.extend(channel.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A performative or section: its code and its fields.
#[must_use]
pub fn described(code: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    [vec![0, 0x53, code], list(fields)].concat()
}

/// A list.
///
/// # Panics
/// When it is larger than a list can be.
#[must_use]
pub fn list(fields: &[Vec<u8>]) -> Vec<u8> {
    let content = fields.concat();
    let size = u32::try_from(content.len() + 4).expect("a list of a test is small");
    let count = u32::try_from(fields.len()).expect("a list of a test is small");
    [&[0xd0][..], &size.to_be_bytes(), &count.to_be_bytes(), &content].concat()
}

/// A uint.
#[must_use]
pub fn uint(number: u32) -> Vec<u8> {
    [&[0x70][..], &number.to_be_bytes()].concat()
}

/// A string.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    long(0xb1, text.as_bytes())
}

/// A symbol.
#[must_use]
pub fn symbol(text: &str) -> Vec<u8> {
    long(0xb3, text.as_bytes())
}

/// A binary.
#[must_use]
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    long(0xb0, bytes)
}

fn long(code: u8, bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("a value of a test is small");
    [&[code][..], &size.to_be_bytes(), bytes].concat()
}

/// Null.
#[must_use]
pub fn null() -> Vec<u8> {
    vec![0x40]
}

/// A boolean.
#[must_use]
pub fn boolean(yes: bool) -> Vec<u8> {
    vec![if yes { 0x41 } else { 0x42 }]
}

/// The frame that opens a connection.
#[must_use]
pub fn open() -> Vec<u8> {
    frame(0, &described(0x10, &[string("test"), string("hub"), uint(65536)]))
}

/// The frame that begins a session on a channel.
#[must_use]
pub fn begin(channel: u16) -> Vec<u8> {
    frame(
        channel,
        &described(code::BEGIN, &[null(), uint(0), uint(1000), uint(1000)]),
    )
}

/// The frame that attaches a link: a sender to an address, or a receiver from one.
#[must_use]
pub fn attach(channel: u16, handle: u32, receiver: bool, address: &str) -> Vec<u8> {
    let named = |code| described(code, &[string(address)]);
    let (source, target) = if receiver {
        (named(0x28), described(0x29, &[]))
    } else {
        (described(0x28, &[]), named(0x29))
    };
    let name = string(&format!("link-{channel}-{handle}-{receiver}"));
    let mut fields = vec![name, uint(handle), boolean(receiver), null(), null(), source, target];
    if !receiver {
        fields.extend([null(), null(), uint(0)]);
    }
    frame(channel, &described(code::ATTACH, &fields))
}

/// The frame that gives credit on a link.
#[must_use]
pub fn credit(channel: u16, handle: u32, count: u32) -> Vec<u8> {
    let session = [uint(0), uint(1000), uint(0), uint(1000)];
    let fields = [&session[..], &[uint(handle), uint(0), uint(count)]].concat();
    frame(channel, &described(code::FLOW, &fields))
}

/// A frame with a part of a delivery, or all of it.
#[must_use]
pub fn transfer(channel: u16, handle: u32, delivery: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let fields = [
        uint(handle),
        uint(delivery),
        binary(&delivery.to_be_bytes()),
        uint(0),
        boolean(false),
        boolean(more),
    ];
    frame(channel, &[described(0x14, &fields), payload.to_vec()].concat())
}

/// Log-in by SASL PLAIN, header and all.
#[must_use]
pub fn plain(user: &str, password: &str) -> Vec<u8> {
    let response = format!("\0{user}\0{password}");
    let init = described(0x41, &[symbol("PLAIN"), binary(response.as_bytes()), string("hub")]);
    [SASL, &sasl_frame(&init), HEADER].concat()
}
