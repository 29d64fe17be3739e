//! Two other implementations of AMQP 1.0, qpid-proton and rhea, talk with ours: each as client and as server.
//!
//! The programs are `tests/python/amqp_peer.py` and `tests/node/amqp_peer.js`; `cargo xtask setup` installs what they need. Where
//! that is missing these tests say so and return, except in CI.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test: the pure core is driven over real sockets here, and what is skipped is said"
)]

mod broker;
mod client;
mod driver;
mod program;

use program::Peer;

#[test]
fn proton_as_a_client_is_served_with_every_type_and_outcome() {
    served(Peer::Proton, &["none", "ANONYMOUS", "PLAIN"]);
}

#[test]
fn rhea_as_a_client_is_served_with_every_type_and_outcome() {
    served(Peer::Rhea, &["none", "ANONYMOUS", "PLAIN"]);
}

#[test]
fn proton_as_a_server_gives_every_value_back_as_itself() {
    let Some(server) = Peer::Proton.serve() else { return };

    client::tell_the_story(server.port(), None, client::any_values());
    client::tell_the_story(
        server.port(),
        Some(holm_amqp::Credentials::Anonymous),
        client::any_values(),
    );
}

#[test]
fn rhea_as_a_server_gives_plain_messages_back_as_themselves() {
    let Some(server) = Peer::Rhea.serve() else { return };

    client::tell_the_story(server.port(), None, client::plain_messages());
    client::tell_the_story(server.port(), Some(client::password()), client::plain_messages());
}

/// Our broker serves a program with each mechanism; small frames make large messages of many.
fn served(peer: Peer, mechanisms: &[&str]) {
    for mechanism in mechanisms {
        for max_frame_size in [512, 65_536] {
            let broker = broker::Broker::start(max_frame_size);
            let Some(outcome) = peer.run_client(broker.port(), mechanism) else {
                return;
            };
            let faults = broker.stop();
            assert!(
                outcome.is_ok() && faults.is_empty(),
                "{mechanism}, frames of {max_frame_size}: {outcome:?}, {faults:?}"
            );
        }
    }
}
