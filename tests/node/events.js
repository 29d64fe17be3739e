'use strict';
// A reader of events on the original Node SDK (@azure/event-hubs), steered over the control line. Environment, commands and events
// are those of tests/python/events.py, those that are here.

require('./web_crypto');
const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const WebSocket = require('ws');
const { Control, explain } = require('./control');

const text = process.env.HOLM_E2E_CONNECTION_STRING;
const options = { retryOptions: { maxRetries: 1 } };
if (process.env.HOLM_E2E_TRANSPORT === 'amqp-ws') options.webSocketOptions = { webSocket: WebSocket };
const open = (group) => new EventHubConsumerClient(group, text, options);

// The SDK makes values of JSON, and leaves other bytes alone.
function plain(body) {
  if (Buffer.isBuffer(body)) return body.toString();
  return typeof body === 'string' ? body : JSON.stringify(body);
}

const client = open('$Default');
const readers = {};
const control = new Control('events');

function begin(command) {
  if (command.sequence !== undefined) return { sequenceNumber: command.sequence, isInclusive: command.inclusive };
  if (command.time !== undefined) return { enqueuedOn: command.time };
  if (command.offset !== undefined) return { offset: command.offset };
  return earliestEventPosition;
}

async function read(command) {
  const { reader, partition, group = '$Default', owner_level: ownerLevel, track } = command;
  const partitions = partition === undefined ? await client.getPartitionIds() : [partition];
  readers[reader] = partitions.map((id) => {
    const own = open(group);
    const handlers = {
      processEvents: async (events, context) => {
        for (const event of events) {
          control.event('read', {
            reader,
            partition: context.partitionId,
            sequence: event.sequenceNumber,
            offset: event.offset,
            enqueued: event.enqueuedTimeUtc,
            body: plain(event.body),
            properties: event.properties || {},
            system: event.systemProperties || {},
            last: track ? context.lastEnqueuedEventProperties : null,
          });
        }
      },
      processError: async (error) => control.event('error', { reader, message: `${error.code} ${explain(error)}` }),
    };
    const subscription = own.subscribe(id, handlers, {
      startPosition: begin(command),
      ownerLevel,
      trackLastEnqueuedEventProperties: Boolean(track),
      maxBatchSize: 100,
      maxWaitTimeInSeconds: 1,
    });
    return { own, subscription };
  });
}

async function stop({ reader }) {
  for (const { own, subscription } of readers[reader]) {
    await subscription.close();
    await own.close();
  }
}

control.serve({
  properties: async () => {
    const found = await client.getEventHubProperties();
    return { name: found.name, created: found.createdOn, partitions: found.partitionIds };
  },
  partition: async ({ partition }) => client.getPartitionProperties(partition),
  read,
  stop,
}).then(() => process.exit(0));
