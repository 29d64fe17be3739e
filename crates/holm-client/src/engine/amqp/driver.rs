//! The task of a connection: it moves bytes, and hands what happens to whom it concerns.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use holm_amqp::{Closed, Event};
use holm_net::{Protocol, Stream, error_chain};

use super::shared::Shared;

/// Drives a connection until its end.
pub(super) async fn drive(shared: Arc<Shared>, stream: Box<dyn Stream>) {
    let _ending = Ending(Arc::clone(&shared));
    let mut connection = holm_net::Connection::new(Wire::new(Arc::clone(&shared)), stream);
    let closed = loop {
        tokio::select! {
            closed = connection.next_event() => break closed,
            () = shared.wake.notified() => {}
        }
    };
    shared.end(error_chain(&closed));
    connection.finish().await;
}

/// Tells the end also when the task is dropped.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end("the connection was given up".to_owned());
    }
}

/// What the driver loop moves: the connection behind its lock. Its one event is the end; all others go to whom they concern.
struct Wire {
    shared: Arc<Shared>,
    input: BytesMut,
}

impl Wire {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            input: BytesMut::new(),
        }
    }
}

impl Protocol for Wire {
    type Event = Closed;

    fn input_buffer(&mut self) -> &mut BytesMut {
        &mut self.input
    }
    fn handle_input(&mut self, now: Instant) {
        self.shared.lock().connection.handle_bytes(now, &self.input);
        self.input.clear();
    }
    fn handle_end(&mut self) {
        self.shared.lock().connection.handle_end();
    }
    fn wants_input(&self) -> bool {
        self.shared.lock().connection.wants_input()
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.shared.lock().connection.handle_timeout(now);
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.shared.lock().connection.poll_timeout()
    }
    fn poll_transmit(&mut self, out: &mut BytesMut) {
        let mut inner = self.shared.lock();
        if inner.connection.poll_transmit(out) {
            inner.tell_of_room();
        }
    }
    fn poll_event(&mut self, _wanted: &impl Fn(&Closed) -> bool) -> Option<Closed> {
        let mut inner = self.shared.lock();
        while let Some(event) = inner.connection.poll_event() {
            if let Event::Closed(reason) = event {
                return Some(reason);
            }
            inner.dispatch(event);
        }
        None
    }
}
