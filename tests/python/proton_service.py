"""A back end on another implementation of AMQP 1.0 (qpid-proton), steered over the control line: what the SDKs don't tell of
what they are answered, and what the command line of the original does by itself.

HOLM_E2E_HOST is the hub. Commands:
  login      [user, password]                SASL PLAIN, or ANONYMOUS without them
  put_token  token, [name]          -> status, description
  send       to, body, [ack, message_id]     -> outcome, [condition, description]
  attach     address                -> condition, description, info of the detach, or ``attached``
  read       address, count, [filter]        -> bodies with their annotations
"""

import os

from proton import Delivery, Described, Endpoint, Message, SSLDomain, symbol
from proton.reactor import Filter
from proton.utils import BlockingConnection, LinkDetached

from control import Control

TIMEOUT = 60
OUTCOMES = {Delivery.ACCEPTED: "accepted", Delivery.REJECTED: "rejected", Delivery.RELEASED: "released"}
SELECTOR = symbol("apache.org:selector-filter:string")


def told(condition):
    info = {str(key): value for key, value in (condition.info or {}).items()}
    return {"condition": condition.name, "description": condition.description, "info": info}


class Program:
    def __init__(self):
        self.control = Control("proton")
        self.connection = None

    def serve(self):
        names = ["login", "put_token", "send", "attach", "read"]
        self.control.serve({name: getattr(self, name) for name in names})

    def login(self, command):
        trust = SSLDomain(SSLDomain.MODE_CLIENT)
        trust.set_trusted_ca_db(os.environ["SSL_CERT_FILE"])
        # The hub's name is an address, which proton does not find in a certificate.
        trust.set_peer_authentication(SSLDomain.VERIFY_PEER)
        options = {"allowed_mechs": "ANONYMOUS"}
        if "user" in command:
            options = {"allowed_mechs": "PLAIN", "user": command["user"], "password": command["password"]}
        url = "amqps://%s:5671" % os.environ["HOLM_E2E_HOST"]
        self.connection = BlockingConnection(url, timeout=TIMEOUT, ssl_domain=trust, **options)

    def put_token(self, command):
        receiver = self.connection.create_receiver("$cbs", credit=1)
        sender = self.connection.create_sender("$cbs")
        properties = {
            "operation": "put-token",
            "type": "servicebus.windows.net:sastoken",
            "name": command.get("name", "hub"),
        }
        sender.send(Message(id="ask", body=command["token"], properties=properties))
        # It comes settled.
        answer = receiver.receive(timeout=TIMEOUT)
        for link in [sender, receiver]:
            link.close()
        status = answer.properties["status-code"]
        return {
            "status": int(status),
            "type": type(status).__name__,
            "description": answer.properties["status-description"],
            "correlation": answer.correlation_id,
        }

    def send(self, command):
        properties = {"iothub-ack": command["ack"]} if "ack" in command else None
        message = Message(
            id=command.get("message_id"),
            address=command["to"],
            body=command["body"].encode(),
            inferred=True,
            properties=properties,
        )
        sender = self.connection.create_sender("/messages/devicebound")
        self.connection.wait(lambda: sender.link.credit, timeout=TIMEOUT)
        delivery = sender.link.send(message)
        self.connection.wait(lambda: delivery.settled, timeout=TIMEOUT)
        outcome = OUTCOMES.get(delivery.remote_state, str(delivery.remote_state))
        condition = delivery.remote.condition
        answer = {"outcome": outcome, **(told(condition) if condition else {})}
        delivery.settle()
        sender.close()
        return answer

    def attach(self, command):
        try:
            receiver = self.connection.create_receiver(command["address"], credit=1)
            self.connection.wait(
                lambda: receiver.link.state & Endpoint.REMOTE_CLOSED, timeout=command.get("patience", TIMEOUT)
            )
            return told(receiver.link.remote_condition)
        except LinkDetached as error:
            return told(error.link.remote_condition)

    def read(self, command):
        options = []
        if "filter" in command:
            options = [Filter({SELECTOR: Described(SELECTOR, command["filter"])})]
        receiver = self.connection.create_receiver(command["address"], credit=100, options=options)
        events = []
        while len(events) < command["count"]:
            message = receiver.receive(timeout=TIMEOUT)
            annotations = {str(key): value for key, value in (message.annotations or {}).items()}
            events.append({"body": bytes(message.body).decode(), "annotations": annotations})
        receiver.close()
        return events


if __name__ == "__main__":
    Program().serve()
