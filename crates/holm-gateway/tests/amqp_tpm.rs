//! SASL by a TPM, byte by byte: what a device is asked, and what ends the exchange.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use holm_amqp::codec::{Frame, FrameBody, ProtocolHeader, decode_frame, encode_frame};
use holm_amqp::performative::{SaslFrame, SaslInit, SaslResponse, Secret};
use holm_amqp::{Limits, SaslCode, Symbol};
use holm_net::Peer;
use holm_net::websocket;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::{Fixture, PATIENCE};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// By which way a device comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tcp,
    WebSocket,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The device's end.
struct Device {
    stream: Box<dyn Stream>,
    input: BytesMut,
}

impl Device {
    /// Begins SASL as a device of that endorsement key; the offers are read over.
    async fn begin(fixture: &Fixture, init: &[u8]) -> Self {
        Self::begin_by(fixture, init, Way::Tcp).await
    }

    async fn begin_by(fixture: &Fixture, init: &[u8], way: Way) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let gateway = fixture.gateway.clone();
        let stream: Box<dyn Stream> = match way {
            Way::Tcp => {
                fixture
                    .scope
                    .spawn(async move { gateway.serve_amqp_stream(far, Peer::default()).await });
                Box::new(near)
            }
            Way::WebSocket => {
                let upgrading = service_fn(move |request| {
                    let answer = gateway.upgrade(request, Peer::default());
                    async move { Ok::<_, Infallible>(answer) }
                });
                fixture.scope.spawn(async move {
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(far), upgrading);
                    serving.with_upgrades().await.unwrap();
                });
                let connecting = websocket::connect(near, "hub.test", "/$iothub/websocket", "AMQPWSB10");
                Box::new(connecting.await.unwrap())
            }
        };
        let mut device = Self {
            stream,
            input: BytesMut::new(),
        };
        device.send(&ProtocolHeader::Sasl.bytes()).await;
        while device.input.len() < ProtocolHeader::BYTES {
            device.read().await;
        }
        let _header = device.input.split_to(ProtocolHeader::BYTES);
        let SaslFrame::Mechanisms(offered) = device.next().await else {
            panic!("mechanisms come first");
        };
        assert!(offered.mechanisms.contains(&Symbol::from_static("TPM")));
        let init = SaslFrame::Init(SaslInit {
            mechanism: Symbol::from_static("TPM"),
            initial_response: Some(Secret(Bytes::copy_from_slice(init))),
            hostname: None,
        });
        device.say(init).await;
        device
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn read(&mut self) {
        let reading = self.stream.read_buf(&mut self.input);
        let count = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("bytes in time")
            .unwrap();
        assert!(count > 0, "the node closed");
    }

    async fn next(&mut self) -> SaslFrame {
        loop {
            match decode_frame(&mut self.input, 4096, Limits::default()).unwrap() {
                Some(Frame {
                    body: FrameBody::Sasl(frame),
                    ..
                }) => return frame,
                Some(other) => panic!("no frame of SASL: {other:?}"),
                None => self.read().await,
            }
        }
    }

    async fn say(&mut self, frame: SaslFrame) {
        let (mut out, body) = (BytesMut::new(), FrameBody::Sasl(frame));
        encode_frame(&Frame { channel: 0, body }, &mut out);
        self.send(&out).await;
    }

    async fn answer(&mut self, response: &[u8]) {
        let response = Secret(Bytes::copy_from_slice(response));
        self.say(SaslFrame::Response(SaslResponse { response })).await;
    }

    async fn challenge(&mut self) -> Bytes {
        match self.next().await {
            SaslFrame::Challenge(challenge) => challenge.challenge.0,
            other => panic!("a challenge was expected: {other:?}"),
        }
    }

    async fn outcome(&mut self) -> SaslCode {
        match self.next().await {
            SaslFrame::Outcome(outcome) => outcome.code,
            other => panic!("the end was expected: {other:?}"),
        }
    }
}

const INIT: &[u8] = b"\x000ne1\0reg-1\0EK";

fn fixture(bytes: usize) -> (Fixture, Vec<u8>) {
    let (fixture, sealed) = (Fixture::hub(), (0..=255).cycle().take(bytes).collect::<Vec<u8>>());
    fixture.node.sealed.set(sealed.clone()).unwrap();
    (fixture, sealed)
}

#[tokio::test]
async fn a_tpm_gets_what_it_opens_in_parts_and_is_let_in_by_its_token_over_tcp_and_in_websocket() {
    for (bytes, way) in [1, 400, 401, 2500]
        .into_iter()
        .flat_map(|bytes| [(bytes, Way::Tcp), (bytes, Way::WebSocket)])
    {
        let (fixture, sealed) = fixture(bytes);
        let mut device = Device::begin_by(&fixture, INIT, way).await;

        assert_eq!(device.challenge().await.as_ref(), [0]);
        device.answer(b"\0SRK").await;
        let (mut whole, mut count) = (Vec::new(), 0);
        loop {
            let part = device.challenge().await;
            assert_eq!((part[0] & 0x80, part[0] & 3), (0x80, count & 3), "part {count}");
            assert!(part.len() > 1 && part.len() <= 401);
            whole.extend_from_slice(&part[1..]);
            count += 1;
            if part[0] & 0x40 != 0 {
                break;
            }
            device.answer(b"\0").await;
        }
        device.answer(b"\0good").await;

        assert_eq!(whole, sealed, "{way:?}");
        assert_eq!(device.outcome().await, SaslCode::Ok);
    }
}

#[tokio::test]
async fn who_answers_wrong_or_out_of_turn_is_refused() {
    let cases: [(&[u8], &[&[u8]]); 9] = [
        (b"\x000ne1\0reg-1\0EK", &[b"\0other"]),
        (b"\x000ne1\0reg-2\0EK", &[b"\0SRK"]),
        (b"\x000ne1\0reg-1\0other", &[b"\0SRK"]),
        (INIT, &[b"SRK"]),
        (INIT, &[b"\0"]),
        (INIT, &[b""]),
        (INIT, &[b"\0SRK", b"\0too early"]),
        (INIT, &[b"\0SRK", b"\0", b"\0wrong"]),
        (INIT, &[b"\0SRK", b"\0", b"\0"]),
    ];
    for (init, answers) in cases {
        let (fixture, _) = fixture(500);
        let mut device = Device::begin(&fixture, init).await;

        for answer in answers {
            device.challenge().await;
            device.answer(answer).await;
        }

        assert_eq!(device.outcome().await, SaslCode::Auth, "{answers:?}");
    }
    let (fixture, _) = fixture(500);
    let mut device = Device::begin(&fixture, INIT).await;
    device.challenge().await;
    device.answer(&[&[0][..], &[1; 2000]].concat()).await;
    assert_eq!(device.outcome().await, SaslCode::Auth, "a key of 2,000 bytes");
    for init in [&b""[..], b"\0", b"\x000ne1\0reg-1", b"0ne1\0reg-1\0EK"] {
        let mut device = Device::begin(&fixture, init).await;
        assert_eq!(device.outcome().await, SaslCode::Auth, "{init:?}");
    }
}
