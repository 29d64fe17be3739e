//! Listens for a client, answers it as far as its work needs, and writes what it sent on each connection to `FILE-1.amqp`,
//! `FILE-2.amqp` and so on, with what was understood beside it: how the recordings of `tests/golden/` are made.
//!
//! `cargo run -p holm-amqp --example record -- PORT FILE`; it ends when it is told to. TLS is taken off before, by any proxy.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool, driven over a real socket"
)]

#[path = "../tests/peers/driver.rs"]
#[expect(dead_code, reason = "the tests with peers use all of it")]
mod driver;
#[path = "../tests/golden/hub.rs"]
mod hub;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use holm_amqp::{Config, Connection};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, file] = &arguments[..] else {
        panic!("give a port and a file");
    };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    println!("listening");
    for (number, socket) in (1..).zip(listener.incoming()) {
        let file = format!("{file}-{number}");
        let connection = Connection::server(Instant::now(), Arc::new(Config::default()));
        let driver = driver::Driver::new(connection, socket.unwrap());
        std::thread::spawn(move || serve(driver, &file));
    }
}

fn serve(mut driver: driver::Driver, file: &str) {
    let mut hub = hub::Hub::default();
    'serving: loop {
        while let Some(event) = driver.connection.poll_event() {
            if !hub.handle(&mut driver.connection, event) {
                break 'serving;
            }
        }
        driver.turn();
    }
    driver.turn();
    std::fs::write(format!("{file}.amqp"), &driver.received).unwrap();
    println!("{file}\n{}", hub.notes.join("\n"));
}
