"""Another implementation of AMQP 1.0 (qpid-proton) beside that of ``crates/holm-amqp``, as its client or as its server.

  amqp_peer.py client PORT MECHANISM    does what ``crates/holm-amqp/tests/peers.rs`` expects of a client, and says ``ok``
  amqp_peer.py server                   says ``listening PORT``; is the broker that the test expects; ends with its input

MECHANISM is ``none``, ``ANONYMOUS`` or ``PLAIN``. The broker's nodes, of either side: what is sent to ``echo`` comes back from
it, decoded and encoded again; ``rejected``, ``released`` and ``modified`` give that outcome; ``refused`` is no node; ``three``
has three messages.
"""

import sys
import threading
import uuid

from proton import (
    Array,
    Condition,
    Data,
    Delivery,
    Described,
    Message,
    Terminus,
    byte,
    char,
    decimal32,
    decimal64,
    decimal128,
    float32,
    int32,
    short,
    symbol,
    timestamp,
    ubyte,
    uint,
    ulong,
    ushort,
)
from proton._exceptions import ConnectionException
from proton.handlers import MessagingHandler
from proton.reactor import Container
from proton.utils import BlockingConnection, LinkDetached, SendException

TIMEOUT = 60


def bodies():
    """One body of each type, and some of several."""
    yield from [None, True, False, ubyte(7), ushort(700), uint(0), uint(255), uint(70000), ulong(0), ulong(2**63)]
    yield from [byte(-7), short(-700), int32(-1), int32(2**31 - 1), -1, 2**62, float32(1.5), -0.25, char("é")]
    yield from [timestamp(1), timestamp(-1), uuid.UUID(int=5), b"", b"\x00\xff" * 200, "", "é" * 200, symbol("s")]
    yield from [decimal32(5), decimal64(6), decimal128(bytes(range(16)))]
    yield from [[], [1, [2, [3, {"k": None}]]], {}, {"a": ulong(1), symbol("b"): [True], ulong(3): b"x"}]
    yield {"k%d" % number: "v" * number for number in range(300)}
    yield from [Described(symbol("d"), "v"), Described(ulong(2**40), [1, 2])]
    yield Array(None, Data.INT, 1, 2, 70000)
    yield Array(None, Data.SYMBOL, symbol("a"), symbol("b" * 300))
    yield Array(None, Data.BOOL, True, False)
    yield Array(symbol("d"), Data.STRING, "a", "b")


def messages():
    for body in bodies():
        yield Message(body=body)
    yield Message(body=b"x" * 300_000, inferred=True)
    for message_id in ["text", ulong(0), uuid.UUID(int=2**100 + 3), b"binary"]:
        yield Message(
            id=message_id,
            correlation_id=message_id,
            user_id=b"user",
            address="echo",
            subject="subject",
            reply_to="back",
            content_type="application/json",
            content_encoding="utf-8",
            expiry_time=1700000000.25,
            creation_time=1700000000.5,
            group_id="group",
            group_sequence=7,
            reply_to_group_id="group",
            durable=True,
            priority=9,
            ttl=60,
            first_acquirer=True,
            delivery_count=3,
            instructions={symbol("x-opt-instruction"): 1},
            annotations={symbol("x-opt-number"): ulong(5), symbol("x-opt-time"): timestamp(5)},
            properties={"text": "value", "number": int32(5), "yes": True, "id": uuid.UUID(int=9)},
            body="with everything",
        )


FIELDS = (
    "id correlation_id user_id address subject reply_to content_type content_encoding expiry_time creation_time group_id "
    "group_sequence reply_to_group_id durable priority ttl first_acquirer delivery_count instructions annotations properties "
    "body"
).split()


def expect(found, expected, what):
    found, expected = (bytes(value) if isinstance(value, memoryview) else value for value in (found, expected))
    if found != expected or type(found) is not type(expected):
        raise AssertionError("%s: %r is not %r" % (what, found, expected))


def expect_same(found, expected):
    for field in FIELDS:
        expect(getattr(found, field), getattr(expected, field), field)


def client(port, mechanism):
    options = {"sasl_enabled": False}
    if mechanism != "none":
        options = {"allowed_mechs": mechanism, "allow_insecure_mechs": True, "user": "user", "password": "secret"}
    connection = BlockingConnection("amqp://127.0.0.1:%s" % port, timeout=TIMEOUT, heartbeat=2, **options)
    receiver = connection.create_receiver("echo", credit=10)
    sender = connection.create_sender("echo")
    for message in messages():
        expect(sender.send(message).remote_state, Delivery.ACCEPTED, "the outcome")
        expect_same(receiver.receive(timeout=TIMEOUT), message)
        receiver.accept()
    for number in range(500):
        sender.send(Message(body=number))
        expect(receiver.receive(timeout=TIMEOUT).body, number, "the next of many")
        receiver.accept()
    for node, state in [
        ("rejected", Delivery.REJECTED),
        ("released", Delivery.RELEASED),
        ("modified", Delivery.MODIFIED),
    ]:
        try:
            connection.create_sender(node).send(Message(body=node), error_states=[state])
            raise AssertionError("%s took the message" % node)
        except SendException as error:
            expect(error.state, state, "the outcome")
    for create in [connection.create_sender, connection.create_receiver]:
        try:
            create("refused")
            raise AssertionError("the link was not refused")
        except LinkDetached as error:
            expect((error.condition, "no node `refused`" in str(error)), ("amqp:not-found", True), "the refusal")
    drained(connection)
    # It closes by itself when nothing comes for as long as it announced.
    transport = connection.conn.transport
    seen = transport.frames_input
    connection.wait(lambda: transport.frames_input >= seen + 4, msg="empty frames")
    wrong_password(port, mechanism)
    connection.close()
    print("ok", flush=True)


def drained(connection):
    three = connection.create_receiver("three", credit=0)
    three.link.drain(10)
    for number in range(3):
        expect(three.receive(timeout=TIMEOUT).body, number, "one of three")
        three.accept()
    connection.wait(lambda: not three.link.draining(), msg="the drain")
    expect(three.link.credit, 0, "the credit after the drain")


def wrong_password(port, mechanism):
    if mechanism != "PLAIN":
        return
    try:
        BlockingConnection(
            "amqp://127.0.0.1:%s" % port,
            timeout=TIMEOUT,
            allowed_mechs="PLAIN",
            allow_insecure_mechs=True,
            user="user",
            password="wrong",
        )
        raise AssertionError("a wrong password was taken")
    except ConnectionException as error:
        expect("amqp:unauthorized-access" in str(error), True, "the refusal: %s" % error)


class Broker(MessagingHandler):
    def __init__(self):
        super().__init__(prefetch=10, auto_accept=False, auto_settle=True)
        self.echoes = []
        self.waiting = []
        self.left = {}
        self.refused = set()

    def on_start(self, event):
        self.acceptor = event.container.listen("127.0.0.1:0")
        print("listening %d" % self.acceptor._selectable._delegate.getsockname()[1], flush=True)
        threading.Thread(target=self.end_with_input, args=[event.container], daemon=True).start()

    def end_with_input(self, container):
        sys.stdin.read()
        container.stop()

    def on_link_opening(self, event):
        link = event.link
        address = link.remote_target.address if link.is_receiver else link.remote_source.address
        if address == "refused":
            link.source.type = link.target.type = Terminus.UNSPECIFIED
            self.refused.add(link.name)
            return
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        if link.is_sender and address == "echo":
            self.echoes.append(link)
        if link.is_sender and address == "three":
            self.left[link.name] = [0, 1, 2]

    def on_link_local_open(self, event):
        if event.link.name in self.refused:
            event.link.condition = Condition("amqp:not-found", "no node `refused`")
            event.link.close()

    def on_message(self, event):
        address = event.link.remote_target.address
        outcomes = {"rejected": Delivery.REJECTED, "released": Delivery.RELEASED, "modified": Delivery.MODIFIED}
        if address == "rejected":
            event.delivery.local.condition = Condition("test:rejected", "as asked")
        event.delivery.update(outcomes.get(address, Delivery.ACCEPTED))
        event.delivery.settle()
        if address == "echo":
            self.waiting.append(event.message)
            self.pump()

    def on_sendable(self, event):
        numbers = self.left.get(event.link.name, [])
        while numbers and event.link.credit:
            event.link.send(Message(body=numbers.pop(0)))
        if event.link.drain_mode:
            event.link.drained()
        self.pump()

    on_link_flow = on_sendable

    def pump(self):
        while self.waiting and self.echoes and self.echoes[-1].credit:
            self.echoes[-1].send(self.waiting.pop(0))

    def on_disconnected(self, event):
        self.echoes.clear()
        self.waiting.clear()


if sys.argv[1] == "client":
    client(sys.argv[2], sys.argv[3])
else:
    Container(Broker()).run()
