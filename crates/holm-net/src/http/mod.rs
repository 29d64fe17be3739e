//! HTTP/1.1 in and out: connections with deadlines, bodies with limits. What a request means is decided elsewhere.

pub mod body;
pub mod client;
mod head;
pub mod server;
mod spelling;

pub use body::{BodyError, ResponseBody};
pub use client::{Client, ClientError};
pub use server::{Handler, serve_connection, serve_tls};
pub use spelling::Spelling;

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream that HTTP can be spoken on.
pub trait AnyStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> AnyStream for T {}
