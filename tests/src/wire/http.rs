//! One HTTP request on one connection.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::patience;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and their values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When the connection breaks or the answer is not HTTP.
pub fn request(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // An end without `close_notify` is usual; the length of the body is checked below.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error).context("no whole answer came"),
        _ => parse(&answer),
    }
}

/// Sends GET and reads the status of the answer, and nothing after it: what asks for another protocol is not ended by the server.
///
/// # Errors
/// When the connection breaks or the answer is not HTTP.
pub fn status_of_get(mut stream: impl Read + Write, target: &str, headers: &[(&str, &str)]) -> Result<u16> {
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).context("no answer came")?;
    let text = String::from_utf8_lossy(&line).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("`{text}` is no status of HTTP"))
}

/// Gets a page in plain HTTP.
///
/// # Errors
/// When nobody answers.
pub fn get_plain(address: SocketAddr, target: &str) -> Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, patience::short())?;
    stream.set_read_timeout(Some(patience::short()))?;
    request(stream, "GET", target, &[("Host", &address.to_string())], b"")
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!(
            "the answer has no end of its head: `{}`",
            String::from_utf8_lossy(answer)
        );
    };
    let head = std::str::from_utf8(&answer[..end]).context("the head of the answer is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("the answer has no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer {
        status: status
            .parse()
            .with_context(|| format!("the status `{status}` is no number"))?,
        headers,
        body: answer[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunk(&answer.body)?;
    }
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().context("the length is no number")?;
        anyhow::ensure!(
            answer.body.len() == length,
            "the body has {} of {length} bytes",
            answer.body.len()
        );
    }
    Ok(answer)
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .context("a chunk has no length")?;
        let length =
            usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16).context("a chunk's length")?;
        if length == 0 {
            return Ok(body);
        }
        let chunk = rest.get(end + 2..end + 2 + length).context("a chunk is cut off")?;
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + length + 2..).context("a chunk has no end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_answer_is_put_together() {
        let answer =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();

        assert_eq!((answer.status, answer.body.as_slice()), (200, b"abcde".as_slice()));
    }

    #[test]
    fn a_cut_off_answer_is_refused() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
