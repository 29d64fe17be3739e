"""A module on the unmodified Python SDK: takes readings, sends on those above its twin's `limit`, answers a method.

It runs where an edge starts it, as a container or as a process; the edge's environment says everything else. Route, say,
`FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint("/modules/filter/inputs/readings")` to it, and
`FROM /messages/modules/filter/outputs/high INTO $upstream` from it.
"""

import json
import signal
import threading

from azure.iot.device import IoTHubModuleClient, Message, MethodResponse

limit = 100.0
passed = 0
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
client = IoTHubModuleClient.create_from_edge_environment()


def apply(desired):
    global limit
    limit = float(desired.get("limit") or limit)
    client.patch_twin_reported_properties({"limit": limit})


def take(received):
    global passed
    if received.input_name != "readings":
        return
    reading = json.loads(received.data)
    if reading["flow"] <= limit:
        return
    message = Message(json.dumps(reading))
    # Named after its cause, so that a repeat after a crash can be recognised.
    message.message_id = f"high-{received.message_id}"
    message.content_type = "application/json"
    message.content_encoding = "utf-8"
    client.send_message_to_output(message, "high")
    passed += 1


def answer(request):
    known = request.name == "status"
    payload = {"limit": limit, "passed": passed} if known else {"error": f"there is no method `{request.name}`"}
    client.send_method_response(MethodResponse.create_from_method_request(request, 200 if known else 404, payload))


client.connect()
client.on_message_received = take
client.on_method_request_received = answer
client.on_twin_desired_properties_patch_received = apply
apply(client.get_twin()["desired"])
print("running", flush=True)
stop.wait()
client.shutdown()
