"""A service on the original Python SDK (azure-iot-hub), steered over the control line.

HOLM_E2E_CONNECTION_STRING is that of a policy of the hub. Commands (answers are what the SDK's models hold):
  create_device     device, [edge, scope]          create_x509_device  device, primary, secondary
  get_device, delete_device   device               update_device       device, status   (with the ETag just read)
  devices           -> ids
  create_module, get_module, delete_module         device, module      modules          device -> ids
  twin              device, [module]               update_twin         device, [module], patch, [etag]
  replace_twin      device, [module], twin, [etag]
  invoke            device, [module], method, payload, [response_timeout, connect_timeout]
  apply             device, content                query               text, [most] -> pages, each with its `type` and `items`
  schedule          job, condition, and patch or method, [payload]     makes a scheduled job
  scheduled, cancel_scheduled     job
  bulk              items (as the SDK's ExportImportDevice)            statistics  -> counts
  digital_twin      device                         update_digital_twin device, patch
  command           device, [component], name, payload
  transfer          properties (as the SDK's JobProperties)            get_transfer, cancel_transfer    job        transfers -> ids
  create_configuration  configuration              (as published)      update_configuration  name, priority  (with the ETag just read)
  configuration, delete_configuration  name        configurations  -> ids         test_queries  condition, metrics
  send              device, body, [properties]     over AMQP (uamqp); of properties, those that the SDK knows become the message's
A refused request is the error ``HttpOperationError``; its message ends with the status and the answer's body.
"""

import os

import private_ca  # noqa: F401
from azure.iot.hub import DigitalTwinClient, IoTHubConfigurationManager, IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    Configuration,
    ConfigurationContent,
    ExportImportDevice,
    JobProperties,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from azure.iot.hub.protocol.models import JobRequest
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
        self.digital_twins = DigitalTwinClient.from_connection_string(text)
        self.configurations_of_hub = IoTHubConfigurationManager.from_connection_string(text)
        self.scheduler = IoTHubJobManager.from_connection_string(text)
        self.control = Control("service")

    def serve(self):
        names = [
            "create_device", "create_x509_device", "get_device", "update_device", "delete_device", "devices",
            "create_module", "get_module", "delete_module", "modules",
            "twin", "update_twin", "replace_twin", "invoke", "apply", "query", "send",
            "bulk", "statistics", "digital_twin", "update_digital_twin", "command",
            "transfer", "get_transfer", "cancel_transfer", "transfers",
            "create_configuration", "configuration", "update_configuration", "delete_configuration",
            "configurations", "test_queries",
            "schedule", "scheduled", "cancel_scheduled",
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
        self.configurations_of_hub.apply_configuration_on_edge_device(command["device"], content)

    def create_configuration(self, command):
        given = command["configuration"]
        content = given["content"]
        made = self.configurations_of_hub.create_configuration(Configuration(
            id=given["id"],
            content=ConfigurationContent(
                device_content=content.get("deviceContent"),
                modules_content=content.get("modulesContent"),
                module_content=content.get("moduleContent"),
            ),
            target_condition=given["targetCondition"],
            priority=given["priority"],
            labels=given.get("labels"),
            metrics=ConfigurationMetrics(queries=given.get("metrics")),
        ))
        return made.as_dict()

    def configuration(self, command):
        return self.configurations_of_hub.get_configuration(command["name"]).as_dict()

    def update_configuration(self, command):
        known = self.configurations_of_hub.get_configuration(command["name"])
        known.priority = command["priority"]
        return self.configurations_of_hub.update_configuration(known, known.etag).as_dict()

    def delete_configuration(self, command):
        self.configurations_of_hub.delete_configuration(command["name"])

    def configurations(self, command):
        return [it.id for it in self.configurations_of_hub.get_configurations(20)]

    def test_queries(self, command):
        asked = ConfigurationQueriesTestInput(
            target_condition=command["condition"], custom_metric_queries=command["metrics"]
        )
        return self.configurations_of_hub.test_configuration_queries(asked).as_dict()

    def send(self, command):
        properties = dict(command.get("properties", {}))
        if "ack" in properties:  # the SDK has no word of its own for it
            properties["iothub-ack"] = properties.pop("ack")
        self.registry.send_c2d_message(command["device"], command["body"], properties)

    def schedule(self, command):
        request = JobRequest(job_id=command["job"], query_condition=command["condition"], max_execution_time_in_seconds=60)
        if "patch" in command:
            request.type = "scheduleUpdateTwin"
            patch = command["patch"]
            request.update_twin = Twin(
                etag="*", tags=patch.get("tags"), properties=TwinProperties(desired=patch.get("desired", {}))
            )
        else:
            request.type = "scheduleDeviceMethod"
            request.cloud_to_device_method = CloudToDeviceMethod(
                method_name=command["method"], payload=command.get("payload"),
                response_timeout_in_seconds=30, connect_timeout_in_seconds=0,
            )
        return self._shown(self.scheduler.create_scheduled_job(command["job"], request))

    def scheduled(self, command):
        return self._shown(self.scheduler.get_scheduled_job(command["job"]))

    def cancel_scheduled(self, command):
        return self._shown(self.scheduler.cancel_scheduled_job(command["job"]))

    @staticmethod
    def _shown(job):
        statistics = job.device_job_statistics
        return {
            "id": job.job_id, "type": job.type, "status": job.status,
            "succeeded": statistics.succeeded_count, "failed": statistics.failed_count, "devices": statistics.device_count,
        }

    def query(self, command):
        """Every page, as the SDK's own sample goes on: for as long as there is a continuation."""
        specification = QuerySpecification(query=command["text"])
        pages, token = [], None
        while True:
            answer = self.registry.query_iot_hub(specification, token, command.get("most"))
            items = [item if isinstance(item, dict) else item.as_dict() for item in answer.items]
            pages.append({"type": answer.type, "items": items})
            token = answer.continuation_token
            if not token:
                return pages

    def bulk(self, command):
        items = [ExportImportDevice(**item) for item in command["items"]]
        return self.registry.bulk_create_or_update_devices(items).as_dict()

    def statistics(self, _):
        devices, service = self.registry.get_device_registry_statistics(), self.registry.get_service_statistics()
        return {**devices.as_dict(), **service.as_dict()}

    def digital_twin(self, command):
        return self.digital_twins.get_digital_twin(command["device"])

    def update_digital_twin(self, command):
        self.digital_twins.update_digital_twin(command["device"], command["patch"])

    def command(self, command):
        device, payload = command["device"], command.get("payload")
        if "component" in command:
            return self.digital_twins.invoke_component_command(device, command["component"], command["name"], payload)
        return self.digital_twins.invoke_command(device, command["name"], payload)

    def transfer(self, command):
        return self.scheduler.create_import_export_job(JobProperties(**command["properties"])).as_dict()

    def get_transfer(self, command):
        return self.scheduler.get_import_export_job(command["job"]).as_dict()

    def cancel_transfer(self, command):
        self.scheduler.cancel_import_export_job(command["job"])

    def transfers(self, _):
        return [job.job_id for job in self.scheduler.get_import_export_jobs()]


if __name__ == "__main__":
    Program().serve()
