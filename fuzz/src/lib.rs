//! Random input for every parser of bytes from outside: no panic, no large allocation, no endless loop, and what is read and
//! written again stays the same.
//!
//! ```text
//! seeds/TARGET/*  ──► mutate(seed, number) ──► target(&[u8])        in a process of its own, its memory limited
//!                          ▲                        │ panic, abort, too slow
//!                          └── the same number ◄────┘  makes the same input again, which is saved
//! ```
//!
//! A target is a plain function of bytes, in [`targets`]; libFuzzer could call the same ones. Coverage-guided fuzzing needs a
//! compiler that this project does not use, so inputs come from good examples (`seeds/`), changed by an operation or several at
//! random. Input number *n* of a seed is always the same, whatever came before: a finding is told by two numbers.
//!
//! An input that once broke a target is kept in `regressions/TARGET/` and runs in each ordinary test.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

pub mod driver;
pub mod mutate;
pub mod targets;

pub use targets::{TARGETS, Target};
