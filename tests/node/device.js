'use strict';
// A device or module on the original Node SDK, steered over the control line. Environment, commands and events are those of
// tests/python/device.py, except that the SDK wants to know the names of methods beforehand: `listen` for methods takes them
// as `names`. HOLM_E2E_TRANSPORT may also be `http`, which polls for messages and has no twins and methods. Commands of this
// program alone:
//   send_batch  bodies
//   settle      how: "complete" | "reject" | "abandon"     what is done with messages from now on; told by the event `settled`
//   upload      name, size [by_hand, type]                  the SDK's own call, or its steps with @azure/storage-blob

require('./web_crypto');
const { Readable } = require('node:stream');
const fs = require('node:fs');
const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Http } = require('azure-iot-device-http');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { AnonymousCredential, BlockBlobClient } = require('@azure/storage-blob');
const { Control, explain } = require('./control');

const TRANSPORTS = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs, http: Http };
const METHODS = ['echo', 'fail', 'silent'];
// The SDK waits for the answer to a twin request for ever, and does not give up when the link goes on which it was asked.
const TWIN_PATIENCE = 45_000;

function answered(what, promise) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer to ${what} in ${TWIN_PATIENCE / 1000} s`)), TWIN_PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Program {
  static async make() {
    const transport = TRANSPORTS[process.env.HOLM_E2E_TRANSPORT || 'mqtt'];
    const text = process.env.HOLM_E2E_CONNECTION_STRING;
    if (!text) {
      const client = await ModuleClient.fromEnvironment(transport);
      return new Program(client, process.env.IOTEDGE_MODULEID || 'module', true);
    }
    const parts = Object.fromEntries(text.split(';').filter(Boolean).map((pair) => {
      const equals = pair.indexOf('=');
      return [pair.slice(0, equals), pair.slice(equals + 1)];
    }));
    const kind = parts.ModuleId ? ModuleClient : Client;
    const client = kind.fromConnectionString(text, transport);
    if (process.env.HOLM_E2E_X509_CERTIFICATE) {
      const set = client.setOptions({
        cert: fs.readFileSync(process.env.HOLM_E2E_X509_CERTIFICATE, 'utf8'),
        key: fs.readFileSync(process.env.HOLM_E2E_X509_KEY, 'utf8'),
      });
      // The HTTP transport takes a certificate at once and never says so.
      if (transport !== Http) await set;
    }
    return new Program(client, parts.ModuleId || parts.DeviceId, Boolean(parts.ModuleId));
  }

  constructor(client, name, isModule) {
    this.client = client;
    this.isModule = isModule;
    this.answers = {};
    this.sdkTwin = null;
    this.settlement = 'complete';
    this.control = new Control(name);
    client.on('error', (error) => this.control.event('background', { error: explain(error) }));
    client.on('disconnect', () => this.control.event('connection', { connected: false }));
    client.on('connect', () => this.control.event('connection', { connected: true }));
  }

  async serve() {
    await this.control.serve({
      connect: async () => { await this.client.open(); },
      disconnect: async () => { await this.client.close(); },
      send: (command) => this.send(command),
      listen: (command) => this.listen(command),
      twin: () => this.twin(),
      report: (command) => this.report(command.patch),
      invoke: (command) => this.invoke(command),
      answer: ({ method, status, payload }) => { this.answers[method] = { status, payload }; },
      send_batch: async ({ bodies }) => { await this.client.sendEventBatch(bodies.map((body) => new Message(body))); },
      settle: ({ how }) => { this.settlement = how; },
      upload: (command) => this.upload(command),
    });
    process.exit(0);
  }

  // Sends a file of a repeated line.
  async upload({ name, size, by_hand: byHand = false, type = 'text/plain' }) {
    const content = Buffer.alloc(size, 'all is well here\n');
    if (!byHand) {
      await this.client.uploadToBlob(name, Readable.from([content]), size);
      return;
    }
    const { correlationId, hostName, containerName, blobName, sasToken } =
      await this.client.getBlobSharedAccessSignature(name);
    const url = `https://${hostName}/${containerName}/${blobName}${sasToken}`;
    const client = new BlockBlobClient(url, new AnonymousCredential());
    let status = { isSuccess: false, statusCode: 500, statusDescription: 'not stored' };
    try {
      const options = { blobHTTPHeaders: { blobContentType: type }, metadata: { line: '4' } };
      const stored = await client.upload(content, size, options);
      const properties = await client.getProperties();
      const read = await client.downloadToBuffer(0, undefined, { blockSize: 256 * 1024 });
      if (!read.equals(content)) throw new Error('what was read is not what was stored');
      status = { isSuccess: true, statusCode: stored._response.status, statusDescription: properties.contentType };
    } finally {
      await this.client.notifyBlobUploadStatus(correlationId, status.isSuccess, status.statusCode, status.statusDescription);
    }
  }

  async send(command) {
    const message = new Message(command.body);
    if (command.message_id !== undefined) message.messageId = command.message_id;
    if (command.correlation_id !== undefined) message.correlationId = command.correlation_id;
    if (command.user_id !== undefined) message.userId = command.user_id;
    if (command.content_type !== undefined) message.contentType = command.content_type;
    if (command.content_encoding !== undefined) message.contentEncoding = command.content_encoding;
    for (const [name, value] of Object.entries(command.properties || {})) message.properties.add(name, value);
    if (command.output !== undefined) await this.client.sendOutputEvent(command.output, message);
    else await this.client.sendEvent(message);
  }

  async listen({ what, names = METHODS }) {
    if (what === 'messages') {
      if (this.isModule) this.client.on('inputMessage', (input, message) => this.onMessage(input, message));
      else this.client.on('message', (message) => this.onMessage(null, message));
    } else if (what === 'methods') {
      for (const name of names) {
        const handler = (request, response) => this.onMethod(request, response);
        if (this.isModule) this.client.onMethod(name, handler);
        else this.client.onDeviceMethod(name, handler);
      }
    } else if (what === 'desired') {
      const twin = await this.getTwin();
      this.sdkTwin = twin;
      twin.on('properties.desired', (patch) => this.control.event('desired', { patch }));
    } else {
      throw new Error(`there is nothing called ${what} to listen to`);
    }
    if (process.env.HOLM_E2E_TRANSPORT === 'http') {
      await this.client.setOptions({ http: { receivePolicy: { interval: 1 } } });
      return;
    }
    // The SDK subscribes without telling when it is done. A connection is in order: when an answer has come to a question that
    // was asked later, the subscription stands. Over AMQP methods have two links, and the second is asked for when the first
    // is there.
    await this.getTwin();
    await this.getTwin();
  }

  getTwin() {
    return answered('a twin request', this.client.getTwin());
  }

  async twin() {
    this.sdkTwin = await this.getTwin();
    const { desired, reported } = JSON.parse(JSON.stringify(this.sdkTwin.properties));
    return { desired, reported };
  }

  async report(patch) {
    if (!this.sdkTwin) await this.twin();
    await answered('a report', new Promise((resolve, reject) => {
      this.sdkTwin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
    }));
  }

  async invoke({ device, module, method, payload, response_timeout: responseTimeout = 30 }) {
    const parameters = {
      methodName: method,
      payload: payload === undefined ? null : payload,
      responseTimeoutInSeconds: responseTimeout,
      connectTimeoutInSeconds: 0,
    };
    const answer = module === undefined
      ? await this.client.invokeMethod(device, parameters)
      : await this.client.invokeMethod(device, module, parameters);
    return { status: answer.status, payload: answer.payload };
  }

  onMessage(input, message) {
    const properties = {};
    for (let index = 0; index < message.properties.count(); index += 1) {
      const { key, value } = message.properties.getItem(index);
      properties[key] = value;
    }
    this.control.event('message', {
      input,
      body: message.getData().toString('utf8'),
      properties,
      message_id: message.messageId,
      correlation_id: message.correlationId,
      user_id: message.userId,
      content_type: message.contentType,
      content_encoding: message.contentEncoding,
    });
    const how = this.settlement;
    this.client[how](message, (error) => {
      if (error) this.control.event('background', { error: explain(error) });
      else this.control.event('settled', { how, message_id: message.messageId });
    });
  }

  onMethod(request, response) {
    const { methodName: name, payload } = request;
    this.control.event('method', { name, payload });
    const answer = this.answers[name] || { status: 200, payload: { method: name, payload } };
    if (answer.status === null || answer.status === undefined) return;
    response.send(answer.status, answer.payload, (error) => {
      if (error) this.control.event('background', { error: explain(error) });
    });
  }
}

Program.make().then((program) => program.serve()).catch((error) => {
  console.error(error);
  process.exit(1);
});
