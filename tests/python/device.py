"""A device or module on the original Python SDK, steered over the control line.

The credential, from the environment:
  HOLM_E2E_CONNECTION_STRING                          of a device or module; with
  HOLM_E2E_X509_CERTIFICATE, HOLM_E2E_X509_KEY        (paths): its ids, and this certificate
  none of these                                       what an edge gives to a module (IOTEDGE_...)
HOLM_E2E_TRANSPORT is ``mqtt`` (as when absent) or ``mqtt-ws``.

Commands, the same in the Node program:
  connect, disconnect
  send      body [output, message_id, correlation_id, user_id, content_type, content_encoding, properties]
  listen    what: "messages" | "methods" | "desired"
  twin      -> {"desired": ..., "reported": ...}
  report    patch
  invoke    device, [module], method, payload, [response_timeout]                    (modules of an edge)
  upload    name, size      a file of a repeated line                                 (devices)
  answer    method, status, payload      how calls of a method are answered from now on; status null: not at all
Events:
  message   input (modules), body, properties, message_id, correlation_id, user_id, content_type, content_encoding
  method    name, payload      answered by 200 and {"method": name, "payload": payload} unless told otherwise
  desired   patch
  connection  connected
  background  error            an error that the SDK had in one of its threads
"""

import http.client
import os
import ssl
import urllib.parse

from azure.iot.device import (
    X509,
    IoTHubDeviceClient,
    IoTHubModuleClient,
    Message,
    MethodResponse,
)

from control import Control, explain


def parse(connection_string):
    return dict(pair.split("=", 1) for pair in connection_string.split(";") if pair)


def make_client():
    options = {"websockets": os.environ.get("HOLM_E2E_TRANSPORT") == "mqtt-ws", "connection_retry_interval": 1}
    text = os.environ.get("HOLM_E2E_CONNECTION_STRING")
    if not text:
        return IoTHubModuleClient.create_from_edge_environment(**options), os.environ.get("IOTEDGE_MODULEID", "module")
    parts = parse(text)
    module = parts.get("ModuleId")
    kind = IoTHubModuleClient if module else IoTHubDeviceClient
    certificate = os.environ.get("HOLM_E2E_X509_CERTIFICATE")
    name = module or parts["DeviceId"]
    if not certificate:
        return kind.create_from_connection_string(text, **options), name
    ids = {"hostname": parts["HostName"], "device_id": parts["DeviceId"]}
    if module:
        ids["module_id"] = module
    if "GatewayHostName" in parts:
        options["gateway_hostname"] = parts["GatewayHostName"]
    x509 = X509(cert_file=certificate, key_file=os.environ["HOLM_E2E_X509_KEY"])
    return kind.create_from_x509_certificate(x509=x509, **ids, **options), name


class Program:
    def __init__(self):
        self.client, name = make_client()
        self.is_module = isinstance(self.client, IoTHubModuleClient)
        self.answers = {}
        self.control = Control(name)
        self.client.on_connection_state_change = self.on_connection
        self.client.on_background_exception = self.on_background

    def serve(self):
        self.control.serve({
            "connect": lambda _: self.client.connect(),
            "disconnect": lambda _: self.client.disconnect(),
            "send": self.send,
            "listen": self.listen,
            "twin": lambda _: self.client.get_twin(),
            "report": lambda command: self.client.patch_twin_reported_properties(command["patch"]),
            "invoke": self.invoke,
            "answer": self.answer,
            "upload": self.upload,
        })
        self.client.shutdown()

    def send(self, command):
        message = Message(command["body"])
        for name in ("message_id", "correlation_id", "user_id", "content_type", "content_encoding"):
            if name in command:
                setattr(message, name, command[name])
        message.custom_properties.update(command.get("properties", {}))
        if "output" in command:
            self.client.send_message_to_output(message, command["output"])
        else:
            self.client.send_message(message)

    def listen(self, command):
        what = command["what"]
        if what == "messages":
            self.client.on_message_received = self.on_message
        elif what == "methods":
            self.client.on_method_request_received = self.on_method
        elif what == "desired":
            self.client.on_twin_desired_properties_patch_received = self.on_desired
        else:
            raise ValueError(f"there is nothing called {what} to listen to")

    def invoke(self, command):
        parameters = {
            "methodName": command["method"],
            "payload": command.get("payload"),
            "responseTimeoutInSeconds": command.get("response_timeout", 30),
            "connectTimeoutInSeconds": 0,
        }
        return self.client.invoke_method(parameters, command["device"], command.get("module"))

    def upload(self, command):
        content = (b"all is well here\n" * (command["size"] // 17 + 1))[: command["size"]]
        info = self.client.get_storage_info_for_blob(command["name"])
        path = urllib.parse.quote(f"/{info['containerName']}/{info['blobName']}") + info["sasToken"]
        store = http.client.HTTPSConnection(info["hostName"], context=ssl.create_default_context())
        store.request("PUT", path, content, {"x-ms-blob-type": "BlockBlob"})
        answer = store.getresponse()
        is_success = answer.status == 201
        description = answer.read().decode("utf-8") or answer.reason
        self.client.notify_blob_upload_status(info["correlationId"], is_success, answer.status, description)
        if not is_success:
            raise RuntimeError(f"{answer.status}: {description}")

    def answer(self, command):
        self.answers[command["method"]] = (command.get("status"), command.get("payload"))

    def on_message(self, message):
        body = message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
        self.control.event(
            "message",
            input=message.input_name,
            body=body,
            properties=dict(message.custom_properties),
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            user_id=message.user_id,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
        )

    def on_method(self, request):
        self.control.event("method", name=request.name, payload=request.payload)
        default = (200, {"method": request.name, "payload": request.payload})
        status, payload = self.answers.get(request.name, default)
        if status is not None:
            self.client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def on_desired(self, patch):
        self.control.event("desired", patch=patch)

    def on_connection(self):
        self.control.event("connection", connected=self.client.connected)

    def on_background(self, error):
        self.control.event("background", error=explain(error))


if __name__ == "__main__":
    Program().serve()
