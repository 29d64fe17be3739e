"""A service on the original Python SDK (azure-iot-hub), steered over the control line.

HOLM_E2E_CONNECTION_STRING is that of a policy of the hub. Commands (answers are what the SDK's models hold):
  create_device     device, [edge, scope]          create_x509_device  device, primary, secondary
  get_device, delete_device   device               update_device       device, status   (with the ETag just read)
  devices           -> ids
  create_module, get_module, delete_module         device, module      modules          device -> ids
  twin              device, [module]               update_twin         device, [module], patch, [etag]
  replace_twin      device, [module], twin, [etag]
  invoke            device, [module], method, payload, [response_timeout, connect_timeout]
  apply             device, content                query               text -> twins
  send              device, body, [properties]     over AMQP (uamqp); of properties, those that the SDK knows become the message's
A refused request is the error ``HttpOperationError``; its message ends with the status and the answer's body.
"""

import os

import private_ca  # noqa: F401
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    ConfigurationContent,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError

from control import Control


class Refused(Exception):
    """A refusal of the hub: the SDK's own error says only its reason phrase."""


def told(action):
    """Runs a command so that a refusal says its status, its error code header and its body."""

    def run(command):
        try:
            return action(command)
        except HttpOperationError as error:
            response = error.response
            code = response.headers.get("iothub-errorcode")
            raise Refused(f"{response.status_code} {code} {response.text}") from error

    return run


class Program:
    def __init__(self):
        text = os.environ["HOLM_E2E_CONNECTION_STRING"]
        self.registry = IoTHubRegistryManager.from_connection_string(text)
        self.configurations = IoTHubConfigurationManager.from_connection_string(text)
        self.control = Control("service")

    def serve(self):
        names = [
            "create_device", "create_x509_device", "get_device", "update_device", "delete_device", "devices",
            "create_module", "get_module", "delete_module", "modules",
            "twin", "update_twin", "replace_twin", "invoke", "apply", "query", "send",
        ]
        self.control.serve({name: told(getattr(self, name)) for name in names})

    def create_device(self, command):
        made = self.registry.create_device_with_sas(
            command["device"], "", "", "enabled",
            iot_edge=command.get("edge", False), device_scope=command.get("scope"),
        )
        return made.as_dict()

    def create_x509_device(self, command):
        return self.registry.create_device_with_x509(
            command["device"], command["primary"], command["secondary"], "enabled"
        ).as_dict()

    def get_device(self, command):
        return self.registry.get_device(command["device"]).as_dict()

    def update_device(self, command):
        known = self.registry.get_device(command["device"])
        keys = known.authentication.symmetric_key
        return self.registry.update_device_with_sas(
            command["device"], known.etag, keys.primary_key, keys.secondary_key, command["status"]
        ).as_dict()

    def delete_device(self, command):
        self.registry.delete_device(command["device"])

    def devices(self, _):
        return [device.device_id for device in self.registry.get_devices()]

    def create_module(self, command):
        return self.registry.create_module_with_sas(command["device"], command["module"], "", "", "").as_dict()

    def get_module(self, command):
        return self.registry.get_module(command["device"], command["module"]).as_dict()

    def delete_module(self, command):
        self.registry.delete_module(command["device"], command["module"])

    def modules(self, command):
        return [module.module_id for module in self.registry.get_modules(command["device"])]

    def twin(self, command):
        if "module" in command:
            return self.registry.get_module_twin(command["device"], command["module"]).as_dict()
        return self.registry.get_twin(command["device"]).as_dict()

    def update_twin(self, command):
        patch = command["patch"]
        return self._write_twin(self.registry.update_twin, self.registry.update_module_twin, command, patch)

    def replace_twin(self, command):
        twin = command["twin"]
        return self._write_twin(self.registry.replace_twin, self.registry.replace_module_twin, command, twin)

    def _write_twin(self, of_device, of_module, command, content):
        twin = Twin(tags=content.get("tags"), properties=TwinProperties(desired=content.get("desired", {})))
        etag = command.get("etag")
        if "module" in command:
            return of_module(command["device"], command["module"], twin, etag).as_dict()
        return of_device(command["device"], twin, etag).as_dict()

    def invoke(self, command):
        method = CloudToDeviceMethod(
            method_name=command["method"],
            payload=command.get("payload"),
            response_timeout_in_seconds=command.get("response_timeout", 30),
            connect_timeout_in_seconds=command.get("connect_timeout", 0),
        )
        if "module" in command:
            answer = self.registry.invoke_device_module_method(command["device"], command["module"], method)
        else:
            answer = self.registry.invoke_device_method(command["device"], method)
        return {"status": answer.status, "payload": answer.payload}

    def apply(self, command):
        content = ConfigurationContent(modules_content=command["content"]["modulesContent"])
        self.configurations.apply_configuration_on_edge_device(command["device"], content)

    def send(self, command):
        properties = dict(command.get("properties", {}))
        if "ack" in properties:  # the SDK has no word of its own for it
            properties["iothub-ack"] = properties.pop("ack")
        self.registry.send_c2d_message(command["device"], command["body"], properties)

    def query(self, command):
        answer = self.registry.query_iot_hub(QuerySpecification(query=command["text"]))
        return [twin.as_dict() for twin in answer.items]


if __name__ == "__main__":
    Program().serve()
