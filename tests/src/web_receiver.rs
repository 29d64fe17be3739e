//! A web server that takes messages, as an endpoint of message routing has it: written here, so that it shares no mistake with Holm.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::patience;

/// A web server. Its thread ends with the process.
#[derive(Debug)]
pub struct WebReceiver {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl WebReceiver {
    /// Starts a server that answers with this status.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (status, taken) = (Arc::new(AtomicU16::new(status)), Arc::default());
        let (answers, takes) = (Arc::clone(&status), Arc::clone(&taken));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle asks again.
                drop(serve(stream, &answers, &takes));
            }
        });
        Self { address, status, taken }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// Answers with another status from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The messages that were taken, in their order.
    #[must_use]
    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until one with this body was taken, and gives all until then.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    #[track_caller]
    pub fn wait_for(&self, body: &Value) -> Vec<Value> {
        patience::wait(&format!("the message {body}"), patience::long(), || {
            let taken = self.taken();
            match taken.iter().any(|message| message["Body"] == *body) {
                true => Ok(taken),
                false => Err(format!("{} came", taken.len())),
            }
        })
    }
}

/// Answers one request: those of the hub are one a connection.
fn serve(stream: TcpStream, status: &AtomicU16, taken: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 && line.trim() != "" {
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let status = status.load(Ordering::SeqCst);
    if status == 200 {
        let batch: Vec<Value> = serde_json::from_slice(&body)?;
        taken.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
    }
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes())
}
