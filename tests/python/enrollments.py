"""A back end of the provisioning service on the original Python SDK (azure-iothub-provisioningserviceclient), steered over the
control line.

HOLM_E2E_CONNECTION_STRING is that of a policy of the service. Commands, the same in the Node program:
  enroll       registration, [device], [certificate | endorsement_key]   -> what the SDK holds of it
  group        group, [certificate]
  keys         registration | group                       -> primary, secondary
  get          registration | group
  set_status   registration, status                       with the ETag just read
  state        registration
  list         -> registration ids
  members      group -> registration ids                  (Node; this SDK passes an argument twice and fails by itself)
  bulk         mode, registrations                        -> successful, errors
  delete       registration | group
"""

import os

import private_ca  # noqa: F401
from provisioningserviceclient import (
    BulkEnrollmentOperation,
    EnrollmentGroup,
    IndividualEnrollment,
    ProvisioningServiceClient,
    QuerySpecification,
)
from provisioningserviceclient.protocol.models import AttestationMechanism

from control import Control

# The models have no word of their own for keys that the service makes.
BY_KEYS = {"type": "symmetricKey"}


def attestation(command, individual):
    if "endorsement_key" in command:
        return AttestationMechanism.create_with_tpm(command["endorsement_key"])
    certificate = command.get("certificate")
    if not certificate:
        return AttestationMechanism(**BY_KEYS)
    if individual:
        return AttestationMechanism.create_with_x509_client_certs(certificate)
    return AttestationMechanism.create_with_x509_signing_certs(certificate)


def shown(model):
    state = getattr(model, "registration_state", None)
    tpm = model.attestation.tpm
    return {
        "status": model.provisioning_status,
        "etag": model.etag,
        "type": model.attestation.type,
        "state": state and state.status,
        "device": getattr(model, "device_id", None),
        "endorsement_key": tpm and tpm.endorsement_key,
    }


class Program:
    def __init__(self):
        self.client = ProvisioningServiceClient.create_from_connection_string(os.environ["HOLM_E2E_CONNECTION_STRING"])
        self.control = Control("enrollments")

    def serve(self):
        names = ["enroll", "group", "keys", "get", "set_status", "state", "list", "bulk", "delete"]
        self.control.serve({name: getattr(self, name) for name in names})

    def enroll(self, command):
        model = IndividualEnrollment.create(
            registration_id=command["registration"],
            attestation=attestation(command, True),
            device_id=command.get("device"),
        )
        return shown(self.client.create_or_update(model))

    def group(self, command):
        model = EnrollmentGroup.create(command["group"], attestation(command, False))
        return shown(self.client.create_or_update(model))

    def keys(self, command):
        if "group" in command:
            mechanism = self.client.get_enrollment_group_attestation_mechanism(command["group"])
        else:
            mechanism = self.client.get_individual_enrollment_attestation_mechanism(command["registration"])
        keys = mechanism.symmetric_key
        return {"primary": keys.primary_key, "secondary": keys.secondary_key}

    def read(self, command):
        if "group" in command:
            return self.client.get_enrollment_group(command["group"])
        return self.client.get_individual_enrollment(command["registration"])

    def get(self, command):
        return shown(self.read(command))

    def set_status(self, command):
        model = self.read(command)
        model.provisioning_status = command["status"]
        return shown(self.client.create_or_update(model))

    def state(self, command):
        state = self.client.get_registration_state(command["registration"])
        return {"status": state.status, "hub": state.assigned_hub, "device": state.device_id}

    def list(self, _):
        query = QuerySpecification("SELECT * FROM enrollments")
        query = self.client.create_individual_enrollment_query(query, page_size=2)
        found = []
        while query.has_next:
            page = query.next()
            if page is None:
                break
            found += [item.registration_id for item in page]
        return found

    def bulk(self, command):
        enrollments = [
            IndividualEnrollment.create(registration_id=id, attestation=AttestationMechanism(**BY_KEYS))
            for id in command["registrations"]
        ]
        result = self.client.run_bulk_operation(BulkEnrollmentOperation(command["mode"], enrollments))
        errors = [[error.registration_id, error.error_code] for error in result.errors]
        return {"successful": result.is_successful, "errors": errors}

    def delete(self, command):
        self.client.delete(self.read(command))


Program().serve()
