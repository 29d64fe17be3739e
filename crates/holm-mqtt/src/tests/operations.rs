//! Random operations on a joined pair; the promises are checked by the test language.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::testing::{check_operations, epoch, events, transmitted, wire};
use crate::{Config, Event, Granted, Outcome, Qos, Session};

use super::strategies::packet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn honest_peers_keep_every_promise_under_random_operations(data in vec(any::<u8>(), 0..600)) {
        // Connected first, so that most operations find an open session.
        let open = [11, 0, 11, 0, 8, 0, 11, 0, 11, 0];
        check_operations(&[&open[..], &data].concat());
    }

    #[test]
    fn any_packets_leave_a_server_within_its_bounds(packets in vec(packet(), 0..60), fragment in 1usize..500) {
        let config = Config { max_events: 5, max_requests: 2, inbound_window: 3, ..Config::default() };
        let mut server = Session::server(epoch(), config);
        let mut first = wire(&[crate::Packet::Connect(Box::new(crate::testing::connect()))]);
        first.extend_from_slice(&wire(&packets));

        let mut closed = 0;
        for piece in first.chunks(fragment) {
            server.handle_bytes(epoch(), piece);
            for event in events(&mut server) {
                prop_assert_eq!(closed, 0, "nothing follows the end");
                match event {
                    Event::Connect(_) => prop_assert!(server.accept(epoch(), false)),
                    Event::Publish { delivery: Some(delivery), .. } => {
                        server.acknowledge(delivery, Outcome::Accept);
                    }
                    Event::Subscribe { request, filters } => {
                        prop_assert!(filters.iter().all(|subscription| subscription.qos <= Qos::AtLeastOnce));
                        let codes = vec![Granted::Failure; filters.len()];
                        prop_assert_eq!(server.suback(request, &codes), Ok(()));
                    }
                    Event::Unsubscribe { request, .. } => prop_assert_eq!(server.unsuback(request), Ok(())),
                    Event::Closed(_) => closed += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(!transmitted(&mut server).is_empty());
    }
}
