"""A device on the unmodified Python SDK: telemetry, twin and direct methods, until its method `stop` is called.

    pip install azure-iot-device
    export SSL_CERT_FILE=hub/ca.pem                        # the hub's authority, if it has made its own
    export DEVICE_CONNECTION_STRING="HostName=…;DeviceId=…;SharedAccessKey=…"
    python device.py
"""

import json
import os
import threading

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse

interval = 1.0
stop = threading.Event()
client = IoTHubDeviceClient.create_from_connection_string(os.environ["DEVICE_CONNECTION_STRING"])


def apply(desired):
    """Takes the desired property `interval` (seconds) and reports what is in effect."""
    global interval
    interval = float(desired.get("interval") or interval)
    client.patch_twin_reported_properties({"interval": interval})
    print(f"interval {interval} s", flush=True)


def answer(request):
    status, payload = 404, {"error": f"there is no method `{request.name}`; there are `status` and `stop`"}
    if request.name in ("status", "stop"):
        status, payload = 200, {"interval": interval}
    client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))
    if request.name == "stop":
        stop.set()


client.connect()
client.on_method_request_received = answer
client.on_twin_desired_properties_patch_received = apply
apply(client.get_twin()["desired"])
print("connected", flush=True)

count = 0
while not stop.wait(interval):
    message = Message(json.dumps({"count": count}))
    message.message_id = f"count-{count}"
    message.content_type = "application/json"
    message.content_encoding = "utf-8"
    message.custom_properties["kind"] = "example"
    client.send_message(message)  # returns when the hub has it on disk
    count += 1
client.shutdown()
print(f"sent {count} messages", flush=True)
