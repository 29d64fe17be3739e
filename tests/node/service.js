'use strict';
// A service on the original Node SDK (azure-iothub), steered over the control line. Commands as in tests/python/service.py, those
// that are here. Messages go over AMQP, or where HOLM_E2E_TRANSPORT says so over AMQP in WebSocket. Commands of this program alone:
//   listen    what: "feedback" | "files", [settle: "complete" | "reject" | "abandon"]     told by events of that name, with `data`

const { AmqpWs } = require('azure-iothub/dist/amqp_ws.js');
const { Amqp } = require('azure-iothub/dist/amqp.js');
const { Message } = require('azure-iot-common');
const { Client, Registry } = require('azure-iothub');
const { Control } = require('./control');

const text = process.env.HOLM_E2E_CONNECTION_STRING;
const registry = Registry.fromConnectionString(text);
const client = Client.fromConnectionString(text, process.env.HOLM_E2E_TRANSPORT === 'amqp-ws' ? AmqpWs : Amqp);

const body = (answer) => answer.responseBody;
const plain = (twin) => JSON.parse(JSON.stringify({
  deviceId: twin.deviceId, etag: twin.etag, version: twin.version, tags: twin.tags, properties: twin.properties,
}));
const found = async ({ device, module }) => {
  const answer = module === undefined ? await registry.getTwin(device) : await registry.getModuleTwin(device, module);
  return body(answer);
};

async function send({ device, body: content, properties = {} }) {
  const message = new Message(content);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'ack' || name === 'messageId') message[name] = value;
    else message.properties.add(name, value);
  }
  await client.open();
  await client.send(device, message);
}

async function listen({ what, settle = 'complete' }) {
  await client.open();
  const open = what === 'files' ? 'getFileNotificationReceiver' : 'getFeedbackReceiver';
  const receiver = await new Promise((resolve, reject) => {
    client[open]((error, found) => (error ? reject(error) : resolve(found)));
  });
  receiver.on('message', (message) => {
    receiver[settle](message, (error) => {
      control.event(what, { data: JSON.parse(message.data.toString()), failed: error ? error.message : null });
    });
  });
}

const control = new Control('service');
control.serve({
  send,
  listen,
  create_device: async ({ device, edge, scope }) =>
    body(await registry.create({ deviceId: device, capabilities: { iotEdge: Boolean(edge) }, deviceScope: scope })),
  get_device: async ({ device }) => body(await registry.get(device)),
  update_device: async ({ device, status }) => {
    const known = body(await registry.get(device));
    return body(await registry.update({ ...known, status }));
  },
  delete_device: async ({ device }) => { await registry.delete(device); },
  devices: async () => body(await registry.list()).map((device) => device.deviceId),
  create_module: async ({ device, module }) =>
    body(await registry.addModule({ deviceId: device, moduleId: module })),
  modules: async ({ device }) => body(await registry.getModulesOnDevice(device)).map((it) => it.moduleId),
  twin: async (command) => plain(await found(command)),
  update_twin: async ({ device, module, patch, etag = '*' }) => {
    const wire = { tags: patch.tags, properties: { desired: patch.desired } };
    const answer = module === undefined
      ? await registry.updateTwin(device, wire, etag)
      : await registry.updateModuleTwin(device, module, wire, etag);
    return plain(body(answer));
  },
  invoke: async ({ device, module, method, payload, response_timeout: responseTimeout = 30, connect_timeout: connectTimeout = 0 }) => {
    const parameters = {
      methodName: method,
      payload: payload === undefined ? null : payload,
      responseTimeoutInSeconds: responseTimeout,
      connectTimeoutInSeconds: connectTimeout,
    };
    const answer = module === undefined
      ? await client.invokeDeviceMethod(device, parameters)
      : await client.invokeDeviceMethod(device, module, parameters);
    return { status: answer.result.status, payload: answer.result.payload };
  },
  apply: async ({ device, content }) => { await registry.applyConfigurationContentOnDevice(device, content); },
}).then(() => process.exit(0));
