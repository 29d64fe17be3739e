'use strict';
// A device that asks the provisioning service where it belongs, on the original Node SDK, steered over the control line.
// Environment and commands are those of tests/python/provisioning.py; HOLM_E2E_TRANSPORT may also be `http`, `amqp` or `amqp-ws`.
// HOLM_E2E_TPM, instead of a key or a certificate, is the socket of a software TPM; then there is one command more:
//   tpm_keys     -> endorsement, root                      the public keys that are enrolled, in base64

const fs = require('node:fs');
const net = require('node:net');
const { NoRetry } = require('azure-iot-common');
const { Client, Message } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Http } = require('azure-iot-device-http');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const provisioning = {
  ...require('azure-iot-provisioning-device-amqp'),
  ...require('azure-iot-provisioning-device-http'),
  ...require('azure-iot-provisioning-device-mqtt'),
};
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { Control } = require('./control');

const TRANSPORTS = {
  mqtt: [provisioning.Mqtt, Mqtt],
  'mqtt-ws': [provisioning.MqttWs, MqttWs],
  amqp: [provisioning.Amqp, Amqp],
  'amqp-ws': [provisioning.AmqpWs, AmqpWs],
  http: [provisioning.Http, Http],
};

// What `/dev/tpm0` is to the SDK: commands and answers of TPM 2.0, over a socket.
class TpmSocket {
  connect(done) {
    this.socket = net.connect(process.env.HOLM_E2E_TPM, () => done(null));
    return null;
  }

  dispatchCommand(command, done) {
    let answer = Buffer.alloc(0);
    const more = (bytes) => {
      answer = Buffer.concat([answer, bytes]);
      if (answer.length < 6 || answer.length < answer.readUInt32BE(2)) return;
      this.socket.off('data', more);
      setImmediate(done, null, answer);
    };
    this.socket.on('data', more);
    this.socket.write(command);
  }

  close() {
    this.socket.end();
  }
}

class Program {
  constructor() {
    this.id = process.env.HOLM_E2E_REGISTRATION_ID;
    this.key = process.env.HOLM_E2E_KEY;
    if (process.env.HOLM_E2E_TPM) {
      const tpm = new (require('tss.js').Tpm)(true);
      tpm.device = new TpmSocket();
      this.tpm = new (require('azure-iot-security-tpm').TpmSecurityClient)(this.id, tpm);
    } else if (!this.key) {
      this.x509 = {
        cert: fs.readFileSync(process.env.HOLM_E2E_X509_CERTIFICATE, 'utf8'),
        key: fs.readFileSync(process.env.HOLM_E2E_X509_KEY, 'utf8'),
      };
    }
    [this.transport, this.hubTransport] = TRANSPORTS[process.env.HOLM_E2E_TRANSPORT || 'mqtt'];
    this.control = new Control(this.id);
  }

  async serve() {
    await this.control.serve({
      register: (command) => this.register(command),
      send: (command) => this.send(command),
      connect: () => this.connect(),
      leave: () => this.leave(),
      tpm_keys: () => this.tpm_keys(),
    });
    process.exit(0);
  }

  async tpm_keys() {
    const text = (method) =>
      new Promise((resolve, reject) => {
        this.tpm[method]((error, key) => (error ? reject(error) : resolve(key.toString('base64'))));
      });
    return { endorsement: await text('getEndorsementKey'), root: await text('getStorageRootKey') };
  }

  security() {
    if (this.tpm) return this.tpm;
    return this.key ? new SymmetricKeySecurityClient(this.id, this.key) : new X509Security(this.id, this.x509);
  }

  async register({ payload }) {
    const { HOLM_E2E_HOST: host, HOLM_E2E_ID_SCOPE: scope } = process.env;
    const client = ProvisioningDeviceClient.create(host, scope, new this.transport(), this.security());
    if (payload !== undefined) client.setProvisioningPayload(payload);
    const told = await client.register();
    // By a TPM the SDK gives the whole answer, else what is in it.
    this.state = told.registrationState ?? told;
    return {
      status: this.state.status,
      substatus: this.state.substatus,
      hub: this.state.assignedHub,
      device: this.state.deviceId,
      payload: this.state.payload,
    };
  }

  async client() {
    const { assignedHub: hub, deviceId: device } = this.state;
    if (this.tpm) {
      const { TpmAuthenticationProvider } = require('azure-iot-security-tpm');
      const provider = TpmAuthenticationProvider.fromTpmSecurityClient(device, hub, this.tpm);
      return Client.fromAuthenticationProvider(provider, this.hubTransport);
    }
    const proof = this.key ? `SharedAccessKey=${this.key}` : 'x509=true';
    const client = Client.fromConnectionString(`HostName=${hub};DeviceId=${device};${proof}`, this.hubTransport);
    client.setRetryPolicy(new NoRetry());
    if (!this.key) {
      const set = client.setOptions(this.x509);
      // The HTTP transport takes a certificate at once and never says so.
      if (this.hubTransport !== Http) await set;
    }
    return client;
  }

  async open() {
    const client = await this.client();
    await client.open();
    return client;
  }

  async send({ body }) {
    const client = await this.open();
    await client.sendEvent(new Message(body));
    await client.close();
  }

  async connect() {
    this.staying = await this.open();
    // Over AMQP a certificate proves something with the first link, and none is there yet.
    await this.staying.sendEvent(new Message('connected'));
    this.staying.on('disconnect', () => {
      // A client whose connection has ended never says that it is closed.
      this.staying = undefined;
      this.control.event('connection', { connected: false });
    });
    this.control.event('connection', { connected: true });
  }

  async leave() {
    const client = this.staying;
    this.staying = undefined;
    if (client) await client.close();
  }
}

new Program().serve();
