//! The edge's connections to a supervisor: at most a few, each with one short line waiting to be complete.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::protocol::{Answer, Content, LONGEST_LINE, Operation, parse};

/// More than one edge never asks at a time, and one asks for few things at once; a ninth connection is closed at once.
const MOST_CONNECTIONS: usize = 8;

/// One connection of an edge.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
    /// It asked for the end of the module and is answered when that has come.
    waits: bool,
}

/// The listener and its connections.
#[derive(Debug)]
pub(super) struct Connections {
    listener: UnixListener,
    open: Vec<Connection>,
}

impl Connections {
    pub(super) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            open: Vec::new(),
        })
    }

    /// What to wait on: the listener first, then the connections in the order in which [`Self::read`] counts them.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = std::iter::once(self.listener.as_fd());
        listener.chain(self.open.iter().map(|connection| connection.stream.as_fd()))
    }

    pub(super) fn accept(&mut self) {
        // An error concerns a client that has gone again.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.open.len() < MOST_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                self.open.push(Connection {
                    stream,
                    line: Vec::new(),
                    waits: false,
                });
            }
        }
    }

    /// Reads what has come on every connection; returns the operations that were asked for, each with its connection.
    pub(super) fn read(&mut self) -> Vec<(usize, Operation)> {
        let mut asked = Vec::new();
        let mut kept = Vec::new();
        for mut connection in self.open.drain(..) {
            let mut operations = Vec::new();
            if connection.read(&mut operations) {
                asked.extend(operations.into_iter().map(|operation| (kept.len(), operation)));
                kept.push(connection);
            } else {
                // Gone, but what it asked for before it went is done.
                asked.extend(operations.into_iter().map(|operation| (usize::MAX, operation)));
            }
        }
        self.open = kept;
        asked
    }

    pub(super) fn answer(&mut self, connection: usize, answer: &Answer) {
        if let Some(connection) = self.open.get_mut(connection) {
            connection.send(answer);
        }
    }

    pub(super) fn wait(&mut self, connection: usize) {
        if let Some(connection) = self.open.get_mut(connection) {
            connection.waits = true;
        }
    }

    /// Answers everyone who waits for the end, and closes all connections.
    pub(super) fn finish(mut self, answer: &Answer) {
        for connection in self.open.iter_mut().filter(|connection| connection.waits) {
            connection.send(answer);
        }
    }
}

impl Connection {
    /// Reads all that has come; false when the connection has ended or talks nonsense without end.
    fn read(&mut self, operations: &mut Vec<Operation>) -> bool {
        let mut buffer = [0; 512];
        loop {
            let length = match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            for byte in buffer.iter().take(length) {
                if *byte != b'\n' {
                    self.line.push(*byte);
                    continue;
                }
                match parse(&std::mem::take(&mut self.line)) {
                    Ok(operation) => operations.push(operation),
                    Err(answer) => self.send(&answer),
                }
            }
            if self.line.len() > LONGEST_LINE {
                self.send(&Answer::new(Content::Error(format!(
                    "a line is longer than {LONGEST_LINE} bytes"
                ))));
                return false;
            }
        }
    }

    /// An answer fits the socket's buffer; a client that does not read its answers loses them.
    fn send(&mut self, answer: &Answer) {
        drop(self.stream.write_all(answer.line().as_bytes()));
    }
}
