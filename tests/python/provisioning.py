"""A device that asks the provisioning service where it belongs, on the original Python SDK, steered over the control line.

HOLM_E2E_HOST, HOLM_E2E_ID_SCOPE, HOLM_E2E_REGISTRATION_ID, and for a proof HOLM_E2E_KEY, or HOLM_E2E_X509_CERTIFICATE and
HOLM_E2E_X509_KEY (paths). HOLM_E2E_TRANSPORT is ``mqtt`` (as when absent) or ``mqtt-ws``.

Commands, the same in the Node program:
  register  [payload]  -> status, substatus, hub, device, payload
  send      body       to the hub that was assigned, by the same proof
  connect              to the hub that was assigned, and stays; not again by itself when that ends
  leave                ends that
Events:
  connection  connected
"""

import json
import os

from azure.iot.device import X509, IoTHubDeviceClient, Message, ProvisioningDeviceClient

from control import Control

WEBSOCKETS = os.environ.get("HOLM_E2E_TRANSPORT") == "mqtt-ws"


class Program:
    def __init__(self):
        self.id = os.environ["HOLM_E2E_REGISTRATION_ID"]
        self.key = os.environ.get("HOLM_E2E_KEY")
        self.x509 = None
        if not self.key:
            self.x509 = X509(
                cert_file=os.environ["HOLM_E2E_X509_CERTIFICATE"], key_file=os.environ["HOLM_E2E_X509_KEY"]
            )
        self.state = None
        self.staying = None
        self.control = Control(self.id)

    def serve(self):
        self.control.serve({
            "register": self.register,
            "send": self.send,
            "connect": lambda _: self.connect(),
            "leave": lambda _: self.leave(),
        })

    def client(self):
        common = {
            "provisioning_host": os.environ["HOLM_E2E_HOST"],
            "registration_id": self.id,
            "id_scope": os.environ["HOLM_E2E_ID_SCOPE"],
            "websockets": WEBSOCKETS,
        }
        if self.key:
            return ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=self.key, **common)
        return ProvisioningDeviceClient.create_from_x509_certificate(x509=self.x509, **common)

    def register(self, command):
        client = self.client()
        if "payload" in command:
            client.provisioning_payload = command["payload"]
        result = client.register()
        self.state = result.registration_state
        payload = getattr(self.state, "response_payload", None) if self.state else None
        return {
            "status": result.status,
            "substatus": self.state and self.state.sub_status,
            "hub": self.state and self.state.assigned_hub,
            "device": self.state and self.state.device_id,
            "payload": json.loads(payload) if isinstance(payload, str) else payload,
        }

    def hub_client(self):
        ids = {
            "hostname": self.state.assigned_hub,
            "device_id": self.state.device_id,
            "websockets": WEBSOCKETS,
            "connection_retry": False,
        }
        if self.key:
            return IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=self.key, **ids)
        return IoTHubDeviceClient.create_from_x509_certificate(x509=self.x509, **ids)

    def send(self, command):
        client = self.hub_client()
        client.connect()
        client.send_message(Message(command["body"]))
        client.shutdown()

    def connect(self):
        client = self.hub_client()
        client.on_connection_state_change = lambda: self.control.event("connection", connected=client.connected)
        client.connect()
        self.staying = client

    def leave(self):
        if self.staying:
            self.staying.shutdown()
        self.staying = None


Program().serve()
