//! Prints the time to decode and to encode a PUBLISH of 256 bytes, and to take one through a pair of sessions.
//!
//! `cargo run --release -p holm-mqtt --example codec_speed`
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use holm_mqtt::{
    Config, Connect, Delivery, Event, Message, Outcome, Packet, PacketId, Publish, Qos, Session, Text, Version, decode,
    encode,
};

const BATCH: usize = 128;
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let topic = Text::try_from("devices/dev1/messages/events/%24.mid=m-1&%24.ct=application%2Fjson")?;
    let id = PacketId::new(7).ok_or("7 is a packet id")?;
    let payload = Bytes::from(vec![b'x'; 256 - 7 - topic.len()]);
    let packet = Packet::Publish(Publish {
        topic: topic.clone(),
        payload: payload.clone(),
        retain: false,
        delivery: Delivery::AtLeastOnce { id, dup: false },
    });
    let mut batch = BytesMut::new();
    for _ in 0..BATCH {
        encode(&packet, &mut batch)?;
    }
    println!("packet: {} bytes", batch.len() / BATCH);

    println!("encode: {:.1} ns", encode_nanoseconds(&packet)?);
    let (copy, decode) = decode_nanoseconds(&batch)?;
    println!("decode: {decode:.1} ns, after {copy:.1} ns for the copy into the buffer");
    let message = Message {
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        ..Message::default()
    };
    println!(
        "session to session and acknowledged: {:.1} ns",
        round_trip_nanoseconds(&message)?
    );
    Ok(())
}

fn per_packet(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / (ROUNDS * BATCH) as f64
}

fn encode_nanoseconds(packet: &Packet) -> Result<f64, Box<dyn Error>> {
    let mut out = BytesMut::new();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        out.clear();
        for _ in 0..BATCH {
            encode(black_box(packet), &mut out)?;
        }
        black_box(&out);
    }
    Ok(per_packet(start.elapsed()))
}

/// The time to copy a packet into the input buffer, and that to decode it there.
fn decode_nanoseconds(batch: &[u8]) -> Result<(f64, f64), Box<dyn Error>> {
    let mut input = BytesMut::new();
    let mut decoding = Duration::ZERO;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        input.extend_from_slice(black_box(batch));
        let copied = Instant::now();
        while let Some(packet) = decode(&mut input, 1 << 20)? {
            black_box(packet);
        }
        decoding += copied.elapsed();
    }
    Ok((per_packet(start.elapsed() - decoding), per_packet(decoding)))
}

fn round_trip_nanoseconds(message: &Message) -> Result<f64, Box<dyn Error>> {
    let now = Instant::now();
    let config = Config {
        inbound_window: BATCH,
        outbound_window: u16::try_from(BATCH)?,
        ..Config::default()
    };
    let connect = Connect {
        version: Version::V311,
        client_id: Text::try_from("dev1")?,
        clean_session: true,
        keep_alive_seconds: 60,
        will: None,
        credentials: None,
    };
    let mut client = Session::client(now, config.clone(), connect)?;
    let mut server = Session::server(now, config);
    let mut wire = BytesMut::new();
    let mut acknowledged = 0;

    let start = Instant::now();
    while acknowledged < ROUNDS * BATCH {
        while client.can_publish() {
            client.publish(now, message)?;
        }
        wire.clear();
        client.poll_transmit(&mut wire);
        server.handle_bytes(now, &wire);
        while let Some(event) = server.poll_event() {
            match event {
                Event::Connect(_) => {
                    server.accept(now, false);
                }
                Event::Publish {
                    delivery: Some(delivery),
                    ..
                } => {
                    server.acknowledge(delivery, Outcome::Accept);
                }
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        wire.clear();
        server.poll_transmit(&mut wire);
        client.handle_bytes(now, &wire);
        while let Some(event) = client.poll_event() {
            acknowledged += usize::from(matches!(event, Event::Acknowledged(_)));
        }
    }
    Ok(per_packet(start.elapsed()))
}
