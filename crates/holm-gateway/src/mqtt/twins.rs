//! Twin requests of one client: answered one after the other, so that two patches are applied in the order they were sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use holm_model::error::{ErrorCode, ServiceError};
use holm_mqtt::DeliveryId;
use serde_json::Value;

use crate::backend::{Admission, Backend};

/// Twin requests of one client that wait; further ones are answered with 429.
pub(super) const MAX_WAITING: usize = 16;

/// What a client asks of its twin.
#[derive(Debug)]
pub(super) enum Request {
    Get,
    PatchReported { patch: Value, expected: Option<u64> },
}

/// A request with what its answer needs.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) rid: Option<String>,
    /// The publish that brought it: acknowledged when the answer is known.
    pub(super) delivery: Option<DeliveryId>,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) rid: Option<String>,
    pub(super) delivery: Option<DeliveryId>,
    pub(super) outcome: Result<Success, ServiceError>,
}

/// A request that was granted.
#[derive(Debug)]
pub(super) enum Success {
    Twin(Value),
    Patched(Option<u64>),
}

/// The requests of one client.
pub(super) struct Requests<B> {
    backend: Arc<B>,
    admission: Arc<Admission>,
    waiting: VecDeque<Asked>,
    current: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
}

impl<B: Backend> Requests<B> {
    pub(super) const fn new(backend: Arc<B>, admission: Arc<Admission>) -> Self {
        Self {
            backend,
            admission,
            waiting: VecDeque::new(),
            current: None,
        }
    }

    /// Adds a request; gives the answer at once when too many wait.
    pub(super) fn ask(&mut self, asked: Asked) -> Option<Answer> {
        if self.waiting.len() >= MAX_WAITING {
            let text = format!("{MAX_WAITING} twin requests of this client are waiting already; send them one by one");
            let outcome = Err(ServiceError::new(ErrorCode::ThrottlingException, text));
            return Some(Answer {
                rid: asked.rid,
                delivery: asked.delivery,
                outcome,
            });
        }
        self.waiting.push_back(asked);
        None
    }

    /// The next answer; waits for ever while nothing is asked. Cancel-safe.
    pub(super) async fn next(&mut self) -> Answer {
        if self.current.is_none() {
            let Some(asked) = self.waiting.pop_front() else {
                return std::future::pending().await;
            };
            let (backend, admission) = (Arc::clone(&self.backend), Arc::clone(&self.admission));
            self.current = Some(run(backend, admission, asked).boxed());
        }
        let Some(current) = &mut self.current else {
            return std::future::pending().await;
        };
        let answer = current.await;
        self.current = None;
        answer
    }
}

async fn run<B: Backend>(backend: Arc<B>, admission: Arc<Admission>, asked: Asked) -> Answer {
    let outcome = match asked.request {
        Request::Get => backend.twin(&admission).await.map(Success::Twin),
        Request::PatchReported { patch, expected } => backend
            .patch_reported(&admission, patch, expected)
            .await
            .map(Success::Patched),
    };
    Answer {
        rid: asked.rid,
        delivery: asked.delivery,
        outcome,
    }
}
