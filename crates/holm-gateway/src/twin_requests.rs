//! Twin requests of one client, whatever protocol it speaks: answered one after the other, so that two patches are applied in the order they were sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use holm_model::error::{ErrorCode, ServiceError};
use serde_json::Value;

use crate::backend::{Admission, Backend};

/// Twin requests of one client that wait; further ones are answered with 429.
pub(crate) const MAX_WAITING: usize = 16;

/// What a client asks of its twin.
#[derive(Debug)]
pub(crate) enum Request {
    Get,
    PatchReported { patch: Value, expected: Option<u64> },
}

/// A request, and what its protocol needs for the answer.
#[derive(Debug)]
pub(crate) struct Asked<A> {
    pub(crate) request: Request,
    pub(crate) asker: A,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer<A> {
    pub(crate) asker: A,
    pub(crate) outcome: Result<Success, ServiceError>,
}

/// A request that was granted.
#[derive(Debug)]
pub(crate) enum Success {
    Twin(Value),
    Patched(Option<u64>),
}

/// The requests of one client.
pub(crate) struct Requests<B, A> {
    backend: Arc<B>,
    admission: Arc<Admission>,
    waiting: VecDeque<Asked<A>>,
    current: Option<Pin<Box<dyn Future<Output = Answer<A>> + Send>>>,
}

impl<B: Backend, A: Send + 'static> Requests<B, A> {
    pub(crate) const fn new(backend: Arc<B>, admission: Arc<Admission>) -> Self {
        Self {
            backend,
            admission,
            waiting: VecDeque::new(),
            current: None,
        }
    }

    /// Adds a request; gives the answer at once when too many wait.
    pub(crate) fn ask(&mut self, asked: Asked<A>) -> Option<Answer<A>> {
        if self.waiting.len() >= MAX_WAITING {
            let text = format!("{MAX_WAITING} twin requests of this client are waiting already; send them one by one");
            let outcome = Err(ServiceError::new(ErrorCode::ThrottlingException, text));
            return Some(Answer {
                asker: asked.asker,
                outcome,
            });
        }
        self.waiting.push_back(asked);
        None
    }

    /// The next answer; waits for ever while nothing is asked. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Answer<A> {
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

async fn run<B: Backend, A>(backend: Arc<B>, admission: Arc<Admission>, asked: Asked<A>) -> Answer<A> {
    let outcome = match asked.request {
        Request::Get => backend.twin(&admission).await.map(Success::Twin),
        Request::PatchReported { patch, expected } => backend
            .patch_reported(&admission, patch, expected)
            .await
            .map(Success::Patched),
    };
    Answer {
        asker: asked.asker,
        outcome,
    }
}
