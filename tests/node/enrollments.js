'use strict';
// A back end of the provisioning service on the original Node SDK, steered over the control line. Environment and commands are
// those of tests/python/enrollments.py.

const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { Control } = require('./control');

const EVERYTHING = { query: 'SELECT * FROM enrollments' };

function attestation({ certificate, endorsement_key: endorsementKey }, member) {
  if (endorsementKey) return { type: 'tpm', tpm: { endorsementKey } };
  if (!certificate) return { type: 'symmetricKey' };
  return { type: 'x509', x509: { [member]: { primary: { certificate } } } };
}

function shown({ provisioningStatus, etag, attestation: { type, tpm }, registrationState, deviceId }) {
  return {
    status: provisioningStatus,
    etag,
    type,
    state: registrationState?.status ?? null,
    device: deviceId ?? null,
    endorsement_key: tpm?.endorsementKey ?? null,
  };
}

class Program {
  constructor() {
    this.client = ProvisioningServiceClient.fromConnectionString(process.env.HOLM_E2E_CONNECTION_STRING);
    this.control = new Control('enrollments');
  }

  async serve() {
    const names = ['enroll', 'group', 'keys', 'get', 'set_status', 'state', 'list', 'members', 'bulk', 'delete'];
    await this.control.serve(Object.fromEntries(names.map((name) => [name, (command) => this[name](command)])));
    process.exit(0);
  }

  async enroll(command) {
    const enrollment = {
      registrationId: command.registration,
      deviceId: command.device,
      attestation: attestation(command, 'clientCertificates'),
    };
    return shown((await this.client.createOrUpdateIndividualEnrollment(enrollment)).responseBody);
  }

  async group(command) {
    const enrollment = {
      enrollmentGroupId: command.group,
      attestation: attestation(command, 'signingCertificates'),
    };
    return shown((await this.client.createOrUpdateEnrollmentGroup(enrollment)).responseBody);
  }

  async keys({ registration, group }) {
    const { responseBody } = group
      ? await this.client.getEnrollmentGroupAttestationMechanism(group)
      : await this.client.getIndividualEnrollmentAttestationMechanism(registration);
    return { primary: responseBody.symmetricKey.primaryKey, secondary: responseBody.symmetricKey.secondaryKey };
  }

  async read({ registration, group }) {
    const { responseBody } = group
      ? await this.client.getEnrollmentGroup(group)
      : await this.client.getIndividualEnrollment(registration);
    return responseBody;
  }

  async get(command) {
    return shown(await this.read(command));
  }

  async set_status(command) {
    const enrollment = { ...(await this.read(command)), provisioningStatus: command.status };
    return shown((await this.client.createOrUpdateIndividualEnrollment(enrollment)).responseBody);
  }

  async state({ registration }) {
    const { responseBody: state } = await this.client.getDeviceRegistrationState(registration);
    return { status: state.status, hub: state.assignedHub, device: state.deviceId };
  }

  async all(query) {
    const found = [];
    do {
      found.push(...(await query.next(query.continuationToken)).responseBody.map((item) => item.registrationId));
    } while (query.hasMoreResults);
    return found;
  }

  list() {
    return this.all(this.client.createIndividualEnrollmentQuery(EVERYTHING, 2));
  }

  members({ group }) {
    return this.all(this.client.createEnrollmentGroupDeviceRegistrationStateQuery(EVERYTHING, group));
  }

  async bulk({ mode, registrations }) {
    const enrollments = registrations.map((id) => ({ registrationId: id, attestation: { type: 'symmetricKey' } }));
    // Without a callback the SDK forgets to end its promise.
    const responseBody = await new Promise((resolve, reject) => {
      this.client.runBulkEnrollmentOperation({ mode, enrollments }, (error, result) => {
        if (error) reject(error);
        else resolve(result);
      });
    });
    const errors = responseBody.errors.map((error) => [error.registrationId, error.errorCode]);
    return { successful: responseBody.isSuccessful, errors };
  }

  async delete({ registration, group }) {
    const { etag } = await this.read({ registration, group });
    if (group) await this.client.deleteEnrollmentGroup(group, etag);
    else await this.client.deleteIndividualEnrollment(registration, etag);
  }
}

new Program().serve();
