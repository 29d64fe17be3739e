//! The way to another machine: TCP, or whatever a simulation gives in its place.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Stream for T {}

/// A stream that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Makes streams to hosts and ports.
pub trait Dial: Send + Sync {
    /// Connects. Cancel-safe: when the future is dropped there is no connection.
    ///
    /// # Errors
    /// The host can't be reached.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a>;
}

/// How this process reaches others: over TCP unless something else is given. Clones are the same.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<dyn Dial>>);

impl Dialer {
    /// Reaches others by `dial`.
    #[must_use]
    pub fn new(dial: impl Dial + 'static) -> Self {
        Self(Some(Arc::new(dial)))
    }

    /// Connects to a host, over TCP with `TCP_NODELAY`.
    ///
    /// # Errors
    /// The host can't be reached.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        if let Some(other) = &self.0 {
            return other.dial(host, port).await;
        }
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() {
            "Dialer(TCP)"
        } else {
            "Dialer(given)"
        })
    }
}
