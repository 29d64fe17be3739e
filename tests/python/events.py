"""A reader of events on the original Python SDK (azure-eventhub), steered over the control line.

HOLM_E2E_CONNECTION_STRING is that of the Event Hub, HOLM_E2E_TRANSPORT ``amqp``, ``amqp-ws`` or ``uamqp`` (the SDK's other
implementation of AMQP). Commands:
  properties                    -> name, created, partitions          partition   partition -> what the SDK says of it
  read    reader, [group, partition, offset | sequence | time, inclusive, owner_level, track]
  stop    reader
A reader without ``partition`` reads all of them, each for itself. Events: ``read`` with reader, partition, sequence, offset,
enqueued, body, properties, system, [last]; ``error`` with reader and message.
"""

import os
import threading
from datetime import datetime, timezone

import private_ca  # noqa: F401
from azure.eventhub import EventHubConsumerClient, TransportType

from control import Control, explain


def text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {text(key): text(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value


class Program:
    def __init__(self):
        self.control = Control("events")
        self.readers = {}
        self.client = self.open("$Default")

    def open(self, group):
        transport = os.environ.get("HOLM_E2E_TRANSPORT", "amqp")
        options = {"connection_verify": os.environ["SSL_CERT_FILE"], "retry_total": 1}
        if transport == "amqp-ws":
            options["transport_type"] = TransportType.AmqpOverWebsocket
        elif transport == "uamqp":
            options = {"uamqp_transport": True, "retry_total": 1}
        string = os.environ["HOLM_E2E_CONNECTION_STRING"]
        return EventHubConsumerClient.from_connection_string(string, consumer_group=group, **options)

    def serve(self):
        commands = {name: getattr(self, name) for name in ["properties", "partition", "read", "stop"]}
        self.control.serve(commands)
        os._exit(0)  # threads of readers that nobody stopped

    def properties(self, _):
        found = self.client.get_eventhub_properties()
        return {
            "name": found["eventhub_name"],
            "created": text(found["created_at"]),
            "partitions": found["partition_ids"],
        }

    def partition(self, command):
        return text(self.client.get_partition_properties(command["partition"]))

    def read(self, command):
        name = command["reader"]
        partitions = [command["partition"]] if "partition" in command else self.client.get_partition_ids()
        self.readers[name] = []
        for partition in partitions:
            client = self.open(command.get("group", "$Default"))
            thread = threading.Thread(target=self._read, args=[name, client, partition, command], daemon=True)
            thread.start()
            self.readers[name].append((client, thread))

    def _read(self, name, client, partition, command):
        position = command.get("offset", "-1")
        if "sequence" in command:
            position = int(command["sequence"])
        if "time" in command:
            position = datetime.fromtimestamp(command["time"] / 1000, tz=timezone.utc)

        def on_event(context, event):
            last = context.last_enqueued_event_properties
            self.control.event(
                "read",
                reader=name,
                partition=context.partition_id,
                sequence=event.sequence_number,
                offset=event.offset,
                enqueued=text(event.enqueued_time),
                body=event.body_as_str(),
                properties=text(event.properties),
                system=text(event.system_properties),
                last=text(last) if last else None,
            )

        def on_error(_, error):
            self.control.event("error", reader=name, message=explain(error))

        try:
            client.receive(
                on_event=on_event,
                on_error=on_error,
                partition_id=partition,
                starting_position=position,
                starting_position_inclusive=command.get("inclusive", False),
                owner_level=command.get("owner_level"),
                track_last_enqueued_event_properties=command.get("track", False),
            )
        except Exception as error:  # whatever the SDK raises is what the test wants to see
            on_error(None, error)

    def stop(self, command):
        for client, thread in self.readers.pop(command["reader"]):
            client.close()
            thread.join(timeout=30)


if __name__ == "__main__":
    Program().serve()
