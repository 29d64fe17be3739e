//! A program on an SDK, and others that take its place: some SDKs end their program when a connection breaks, and some never connect
//! anew. That is theirs to mend; here it counts, and the work goes on.

use std::time::Duration;

use serde_json::Value;

use crate::Sdk;
use crate::sdk::Running;

/// More than any run has faults.
const SPARES: usize = 100;

/// What came of a command that was not carried out.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The SDK said no.
    Refused(String),
    /// The program has ended.
    Gone,
}

/// A program that can be replaced.
pub(super) struct Program {
    running: Running,
    spares: Vec<Sdk>,
    /// How often it was replaced.
    pub(super) replaced: u64,
}

impl Program {
    #[track_caller]
    pub(super) fn start(make: impl Fn() -> Sdk) -> Self {
        // Before the first starts: making one writes the authority that it will trust.
        let spares: Vec<Sdk> = (0..SPARES).map(|_| make()).collect();
        Self {
            running: make().start(),
            spares,
            replaced: 0,
        }
    }

    #[track_caller]
    pub(super) fn ask(&mut self, action: &str, arguments: Value) -> Result<Value, Trouble> {
        match self.running.ask(action, arguments) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(Trouble::Refused(format!("{}: {}", failure.kind, failure.message))),
            Err(_) => Err(Trouble::Gone),
        }
    }

    /// The next event, if one comes in this time.
    pub(super) fn next_event(&mut self, patience: Duration) -> Option<Value> {
        self.running.next_event(patience)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.running.is_gone()
    }

    /// Starts another one in its place; gives the events that nobody took.
    #[track_caller]
    pub(super) fn replace(&mut self) -> Vec<Value> {
        let next = self.spares.pop().expect("there are more spares than faults").start();
        self.replaced += 1;
        std::mem::replace(&mut self.running, next).take_left()
    }

    /// The events that nobody took.
    pub(super) fn end(mut self) -> Vec<Value> {
        self.running.take_left()
    }
}

impl Trouble {
    pub(super) fn text(self) -> String {
        match self {
            Self::Refused(text) => text,
            Self::Gone => "the program has ended".to_owned(),
        }
    }
}
