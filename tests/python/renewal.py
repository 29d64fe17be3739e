"""A device that knows MQTT and the published topics of certificate renewal, and nothing else of IoT Hub.

    renewal.py HOST AUTHORITY CERTIFICATE KEY DEVICE REQUEST...

connects by its certificate, sends the first request (base64), and the next when the one before was met or refused; prints each
answer as a line of JSON: {"topic": …, "body": …}. It ends after the last.
"""

import json
import sys

import paho.mqtt.client as mqtt

HOST, AUTHORITY, CERTIFICATE, KEY, DEVICE = sys.argv[1:6]
REQUESTS = sys.argv[6:]


def ask(client, number):
    body = {"id": DEVICE, "csr": REQUESTS[number], "replace": "*"}
    topic = f"$iothub/credentials/POST/issueCertificate/?$rid=r-{number:02}"
    client.publish(topic, json.dumps(body), qos=1)


def on_connect(client, _data, _flags, code):
    if code != 0:
        sys.exit(f"refused: {code}")
    client.subscribe("$iothub/credentials/res/#", qos=1)


def on_subscribe(client, _data, _id, _granted):
    ask(client, 0)


def on_message(client, number, message):
    print(json.dumps({"topic": message.topic, "body": json.loads(message.payload)}), flush=True)
    if "/res/202/" in message.topic:
        return
    client.user_data_set(number + 1)
    if number + 1 < len(REQUESTS):
        ask(client, number + 1)
    else:
        client.disconnect()


CLIENT = mqtt.Client(client_id=DEVICE, clean_session=True, userdata=0, protocol=mqtt.MQTTv311)
CLIENT.username_pw_set(f"{HOST}/{DEVICE}/?api-version=2025-08-01-preview")
CLIENT.tls_set(ca_certs=AUTHORITY, certfile=CERTIFICATE, keyfile=KEY)
CLIENT.on_connect, CLIENT.on_subscribe, CLIENT.on_message = on_connect, on_subscribe, on_message
CLIENT.connect(HOST, 8883, keepalive=60)
CLIENT.loop_forever(retry_first_connection=False)
