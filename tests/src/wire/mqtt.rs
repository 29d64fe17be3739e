//! MQTT 3.1.1, byte by byte: enough of a client to say what no library would let us say.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wire::tls::Stream;

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Connect {
    /// 4 is MQTT 3.1.1.
    pub level: u8,
    /// Client id.
    pub client_id: String,
    /// User name.
    pub user: String,
    /// Password; none with certificates.
    pub password: Option<String>,
    /// Whether an earlier session is thrown away.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// Topic and payload that the server publishes when the connection breaks.
    pub will: Option<(String, Vec<u8>)>,
}

impl Connect {
    /// As the Python SDK connects: an identity (`device` or `device/module`) at a host.
    #[must_use]
    pub fn new(host: &str, identity: &str, password: Option<String>) -> Self {
        Self {
            level: 4,
            client_id: identity.to_owned(),
            user: format!("{host}/{identity}/?api-version=2019-10-01&DeviceClientType=e2e%2F1"),
            password,
            clean: false,
            keep_alive: 60,
            will: None,
        }
    }

    fn packet(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, b"MQTT");
        let mut flags = 0x80 | u8::from(self.clean) << 1;
        flags |= if self.password.is_some() { 0x40 } else { 0 };
        flags |= if self.will.is_some() { 0x0c } else { 0 };
        body.extend([self.level, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        put_text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload)) = &self.will {
            put_text(&mut body, topic.as_bytes());
            put_text(&mut body, payload);
        }
        put_text(&mut body, self.user.as_bytes());
        if let Some(password) = &self.password {
            put_text(&mut body, password.as_bytes());
        }
        packet(0x10, &body)
    }
}

/// A packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The answer to CONNECT.
    Connack {
        /// Whether an earlier session goes on.
        session: bool,
        /// 0 is welcome.
        code: u8,
    },
    /// A QoS 1 publish is accepted.
    Puback(u16),
    /// The codes of a SUBSCRIBE, in order.
    Suback(u16, Vec<u8>),
    /// A message.
    Publish {
        /// 0 or 1.
        qos: u8,
        /// Whether it was sent before.
        dup: bool,
        /// Topic.
        topic: String,
        /// Packet id; 0 at QoS 0.
        id: u16,
        /// Payload.
        payload: Vec<u8>,
    },
    /// The answer to PINGREQ.
    Pingresp,
    /// Another packet: its first byte and its body.
    Other(u8, Vec<u8>),
}

/// What a connection had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet.
    Packet(Packet),
    /// Its end.
    Closed,
    /// Nothing, for as long as was waited.
    Nothing,
}

/// A connection. Nothing is sent that was not asked for: no pings, no acknowledgements.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    next_id: u16,
}

impl Client {
    /// A client on an open stream that has said nothing yet.
    #[must_use]
    pub const fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            next_id: 0,
        }
    }

    /// The certificate that the server has shown, in DER.
    ///
    /// # Panics
    /// Never: a connection stands only after that.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.stream.conn.peer_certificates().and_then(|chain| chain.first());
        chain.expect("the handshake is done").to_vec()
    }

    /// Sends CONNECT and returns the code of the CONNACK; `None` when the server just closes.
    ///
    /// # Errors
    /// When the connection fails otherwise, or another packet comes first.
    pub fn connect(&mut self, connect: &Connect) -> Result<Option<u8>> {
        self.send(&connect.packet())?;
        match self.receive(crate::patience::short())? {
            None => Ok(None),
            Some(Packet::Connack { code, .. }) => Ok(Some(code)),
            Some(other) => bail!("{other:?} came before CONNACK"),
        }
    }

    /// Sends CONNECT and returns whether a session went on.
    ///
    /// # Errors
    /// When the answer is not a welcome.
    pub fn open(&mut self, connect: &Connect) -> Result<bool> {
        self.send(&connect.packet())?;
        match self.receive(crate::patience::short())? {
            Some(Packet::Connack { session, code: 0 }) => Ok(session),
            other => bail!("a welcome was expected; it came {other:?}"),
        }
    }

    /// Publishes and returns the packet id (0 at QoS 0); waits for nothing.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: &[u8]) -> Result<u16> {
        let id = if qos == 0 { 0 } else { self.take_id() };
        self.send_publish(topic, id, qos << 1 | u8::from(retain), payload)?;
        Ok(id)
    }

    /// Publishes at QoS 1 and waits until that is acknowledged. Other packets that come in between are dropped.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn store(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let id = self.publish(topic, 1, false, payload)?;
        loop {
            match self.receive(crate::patience::long())? {
                Some(Packet::Puback(of)) if of == id => return Ok(()),
                Some(_) => {}
                None => bail!("the server closed instead of acknowledging a message"),
            }
        }
    }

    /// Publishes once more, at QoS 1, what was not acknowledged on an earlier connection.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn publish_again(&mut self, topic: &str, id: u16, payload: &[u8]) -> Result<()> {
        self.next_id = self.next_id.max(id);
        self.send_publish(topic, id, 0x08 | 0x02, payload)
    }

    fn send_publish(&mut self, topic: &str, id: u16, flags: u8, payload: &[u8]) -> Result<()> {
        let mut body = Vec::new();
        put_text(&mut body, topic.as_bytes());
        if id > 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(payload);
        self.send(&packet(0x30 | flags, &body))
    }

    /// Subscribes and returns the codes. Packets that come in between are dropped.
    ///
    /// # Errors
    /// When the connection ends before the answer.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Result<Vec<u8>> {
        let id = self.take_id();
        let mut body = id.to_be_bytes().to_vec();
        for (filter, qos) in filters {
            put_text(&mut body, filter.as_bytes());
            body.push(*qos);
        }
        self.send(&packet(0x82, &body))?;
        loop {
            match self.receive(crate::patience::short())? {
                Some(Packet::Suback(of, codes)) if of == id => return Ok(codes),
                Some(_) => {}
                None => bail!("the server closed instead of answering SUBSCRIBE"),
            }
        }
    }

    /// Acknowledges a message.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn acknowledge(&mut self, id: u16) -> Result<()> {
        self.send(&packet(0x40, &id.to_be_bytes()))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        Ok(())
    }

    /// The next packet; `None` when the server has closed.
    ///
    /// # Errors
    /// When nothing comes in time, or it is not MQTT.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Packet>> {
        match self.arrival(patience)? {
            Arrival::Packet(packet) => Ok(Some(packet)),
            Arrival::Closed => Ok(None),
            Arrival::Nothing => bail!("no packet came within {patience:?}"),
        }
    }

    /// What comes next, if anything does in time.
    ///
    /// # Errors
    /// When it is not MQTT.
    pub fn arrival(&mut self, patience: Duration) -> Result<Arrival> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Arrival::Packet(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Arrival::Nothing);
            }
            self.stream.sock.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Arrival::Closed),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if is_close(error.kind()) => return Ok(Arrival::Closed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the server closes; packets that come before are returned.
    ///
    /// # Errors
    /// When it does not close in time.
    pub fn closed(&mut self, patience: Duration) -> Result<Vec<Packet>> {
        let deadline = Instant::now() + patience;
        let mut packets = Vec::new();
        while let Some(packet) = self.receive(deadline.saturating_duration_since(Instant::now()))? {
            packets.push(packet);
        }
        Ok(packets)
    }

    /// The packet id that was given out last.
    #[must_use]
    pub const fn last_id(&self) -> u16 {
        self.next_id
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    fn take_packet(&mut self) -> Result<Option<Packet>> {
        let Some((length, head)) = remaining_length(self.buffer.get(1..).unwrap_or_default())? else {
            return Ok(None);
        };
        let end = 1 + head + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let packet: Vec<u8> = self.buffer.drain(..end).collect();
        decode(packet[0], &packet[1 + head..]).map(Some)
    }
}

fn is_close(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

fn decode(first: u8, body: &[u8]) -> Result<Packet> {
    Ok(match (first >> 4, body) {
        (2, [flags, code]) => Packet::Connack {
            session: flags & 1 == 1,
            code: *code,
        },
        (4, [high, low]) => Packet::Puback(u16::from_be_bytes([*high, *low])),
        (9, [high, low, codes @ ..]) => Packet::Suback(u16::from_be_bytes([*high, *low]), codes.to_vec()),
        (13, []) => Packet::Pingresp,
        (3, [high, low, rest @ ..]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((topic, rest)) = rest.split_at_checked(length) else {
                bail!("a topic is cut off");
            };
            let qos = first >> 1 & 3;
            let (id, payload) = match (qos, rest) {
                (0, payload) => (0, payload),
                (_, [high, low, payload @ ..]) => (u16::from_be_bytes([*high, *low]), payload),
                _ => bail!("a packet id is cut off"),
            };
            Packet::Publish {
                qos,
                dup: first & 8 != 0,
                topic: std::str::from_utf8(topic)?.to_owned(),
                id,
                payload: payload.to_vec(),
            }
        }
        (_, body) => Packet::Other(first, body.to_vec()),
    })
}

/// The remaining length and the bytes that it takes; `None` when more bytes are needed.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    anyhow::ensure!(bytes.len() < 4, "the remaining length has no end");
    Ok(None)
}

/// A packet: first byte, remaining length, body.
///
/// # Panics
/// When the body is larger than MQTT can say.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 1 << 28, "larger than MQTT can say");
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).expect("7 bits fit");
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn put_text(body: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("a text of a test has at most 65,535 bytes");
    body.extend(length.to_be_bytes());
    body.extend(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_several_bytes_reads_back() {
        for size in [0, 127, 128, 16_383, 16_384, 300_000] {
            let packet = packet(0x30, &vec![0; size]);

            let (length, head) = remaining_length(&packet[1..]).unwrap().unwrap();

            assert_eq!((length, packet.len()), (size, 1 + head + size));
        }
    }

    #[test]
    fn a_publish_is_read() {
        let packet = decode(0x3a, b"\0\x03a/b\0\x07body").unwrap();

        let expected = Packet::Publish {
            qos: 1,
            dup: true,
            topic: "a/b".into(),
            id: 7,
            payload: b"body".to_vec(),
        };
        assert_eq!(packet, expected);
    }
}
