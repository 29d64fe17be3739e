'use strict';
// A service on the original Node SDK (azure-iothub), steered over the control line. Commands as in tests/python/service.py, those
// that are here. Messages go over AMQP, or where HOLM_E2E_TRANSPORT says so over AMQP in WebSocket. Commands of this program alone:
//   scheduled_jobs  type, status -> ids
//   bulk      what: "add" | "update" | "remove", items, [force]
//   export    container, [exclude_keys]      import    input, output      get_transfer, cancel_transfer    job      transfers -> ids
//   listen    what: "feedback" | "files", [settle: "complete" | "reject" | "abandon"]     told by events of that name, with `data`

const { AmqpWs } = require('azure-iothub/dist/amqp_ws.js');
const { Amqp } = require('azure-iothub/dist/amqp.js');
const { Message } = require('azure-iot-common');
const { Client, JobClient, Registry } = require('azure-iothub');
const { Control } = require('./control');

const text = process.env.HOLM_E2E_CONNECTION_STRING;
const registry = Registry.fromConnectionString(text);
const scheduler = JobClient.fromConnectionString(text);
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

const shown = (answer) => {
  const job = answer.jobStatus;
  const { succeededCount: succeeded, failedCount: failed, deviceCount: devices } = job.deviceJobStatistics;
  return { id: job.jobId, type: job.type, status: job.status, succeeded, failed, devices };
};

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
  query: async ({ text: sql, most }) => {
    const query = registry.createQuery(sql, most);
    const pages = [];
    while (query.hasMoreResults) {
      // Without the token the SDK's `next` begins anew.
      const answer = await query.next(query.continuationToken);
      pages.push({ type: answer.message.headers['x-ms-item-type'], items: answer.result });
    }
    return pages;
  },
  schedule: async ({ job, condition, patch, method, payload }) => {
    if (patch === undefined) {
      const parameters = { methodName: method, payload, responseTimeoutInSeconds: 30 };
      return shown(await scheduler.scheduleDeviceMethod(job, condition, parameters, new Date(), 60));
    }
    const twin = { etag: '*', tags: patch.tags, properties: { desired: patch.desired } };
    return shown(await scheduler.scheduleTwinUpdate(job, condition, twin, new Date(), 60));
  },
  scheduled: async ({ job }) => shown(await scheduler.getJob(job)),
  cancel_scheduled: async ({ job }) => shown(await scheduler.cancelJob(job)),
  scheduled_jobs: async ({ type, status }) => {
    const answer = await scheduler.createQuery(type, status).next();
    return answer.result.map((job) => job.jobId);
  },
  bulk: async ({ what, items, force = false }) => body(
    what === 'add' ? await registry.addDevices(items)
      : what === 'update' ? await registry.updateDevices(items, force)
        : await registry.removeDevices(items, force)),
  export: async ({ container, exclude_keys: excludeKeys = false }) => registry.exportDevicesToBlob(container, excludeKeys),
  import: async ({ input, output }) => registry.importDevicesFromBlob(input, output),
  get_transfer: async ({ job }) => registry.getJob(job),
  cancel_transfer: async ({ job }) => { await registry.cancelJob(job); },
  transfers: async () => body(await registry.listJobs()).map((job) => job.jobId),
  create_configuration: async ({ configuration: { metrics = {}, ...rest } }) =>
    body(await registry.addConfiguration({ ...rest, schemaVersion: '1.0', metrics: { queries: metrics, results: {} } })),
  configuration: async ({ name }) => body(await registry.getConfiguration(name)),
  update_configuration: async ({ name, priority }) => {
    const known = body(await registry.getConfiguration(name));
    return body(await registry.updateConfiguration({ ...known, priority }, false));
  },
  delete_configuration: async ({ name }) => { await registry.removeConfiguration(name); },
  configurations: async () => body(await registry.getConfigurations()).map((it) => it.id),
  apply: async ({ device, content }) => { await registry.applyConfigurationContentOnDevice(device, content); },
}).then(() => process.exit(0));
