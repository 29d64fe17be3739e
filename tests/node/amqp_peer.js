'use strict';
// Another implementation of AMQP 1.0 (rhea) beside that of crates/holm-amqp. Arguments, nodes and what it says are those of
// tests/python/amqp_peer.py.

const assert = require('node:assert');
const rhea = require('rhea');

const { types } = rhea;
const TIMEOUT = 60000;

// Bodies with what they are read as.
function bodies() {
  const wide = Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`k${number}`, 'v'.repeat(number)]));
  return [
    [null, null], [true, true], [types.wrap_ubyte(7), 7], [types.wrap_ushort(700), 700], [types.wrap_uint(0), 0],
    [types.wrap_uint(70000), 70000], [types.wrap_ulong(255), 255], [types.wrap_ulong(2 ** 40), 2 ** 40],
    [types.wrap_byte(-7), -7], [types.wrap_short(-700), -700], [types.wrap_int(-1), -1], [types.wrap_int(70000), 70000],
    [types.wrap_long(-5), -5], [types.wrap_float(1.5), 1.5], [types.wrap_double(-0.25), -0.25],
    [types.wrap_timestamp(1700000000123), 1700000000123], ['', ''], ['é'.repeat(200), 'é'.repeat(200)],
    [types.wrap_symbol('s'), 's'], [[], []], [[1, [2, ['x', { k: null }]]], [1, [2, ['x', { k: null }]]]],
    [{ a: 1, b: [true] }, { a: 1, b: [true] }], [wide, wide],
    [types.wrap_array([1, 2, 70000], 0x71), [1, 2, 70000]],
    [types.wrap_array(['a', 'b'.repeat(300)], 0xb3), ['a', 'b'.repeat(300)]],
  ];
}

function full(id) {
  return {
    message_id: id,
    correlation_id: id,
    user_id: 'user',
    to: 'echo',
    subject: 'subject',
    reply_to: 'back',
    content_type: 'application/json',
    content_encoding: 'utf-8',
    absolute_expiry_time: 1700000000250,
    creation_time: 1700000000500,
    group_id: 'group',
    group_sequence: 7,
    reply_to_group_id: 'group',
    durable: true,
    priority: 9,
    ttl: 60000,
    first_acquirer: true,
    delivery_count: 3,
    delivery_annotations: { 'x-opt-instruction': 1 },
    message_annotations: { 'x-opt-number': 5 },
    application_properties: { text: 'value', number: 5, yes: true },
    body: 'with everything',
  };
}

function timeout(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come in time`)), TIMEOUT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const next = (emitter, event) => timeout(new Promise((resolve) => emitter.once(event, resolve)), event);

async function outcome(sender, message) {
  if (!sender.sendable()) await next(sender, 'sendable');
  const delivery = sender.send(message);
  return timeout(new Promise((resolve) => {
    const done = (kind) => (context) => { if (context.delivery === delivery) resolve([kind, context.delivery.remote_state]); };
    for (const kind of ['accepted', 'rejected', 'released', 'modified']) sender.on(kind, done(kind));
  }), 'the outcome').finally(() => sender.removeAllListeners());
}

async function echoed(sender, receiver, message) {
  const back = next(receiver, 'message');
  const [kind] = await outcome(sender, message);
  assert.strictEqual(kind, 'accepted');
  return (await back).message;
}

async function client(port, mechanism) {
  const options = { host: '127.0.0.1', port: Number(port), reconnect: false, idle_time_out: 2000 };
  if (mechanism === 'ANONYMOUS') options.username = 'user';
  if (mechanism === 'PLAIN') Object.assign(options, { username: 'user', password: 'secret' });
  const connection = rhea.create_container().connect(options);
  await next(connection, 'connection_open');
  const receiver = connection.open_receiver({ source: 'echo', credit_window: 10 });
  const sender = connection.open_sender('echo');
  await next(receiver, 'receiver_open');
  for (const [body, expected] of bodies()) {
    const { body: found } = await echoed(sender, receiver, { body });
    assert.deepStrictEqual(found ?? null, expected);
  }
  const large = Buffer.alloc(300000, 'x');
  const data = await echoed(sender, receiver, { body: rhea.message.data_section(large) });
  assert.ok(large.equals(data.body.content));
  const uuid = rhea.string_to_uuid('123e4567-e89b-12d3-a456-426614174000');
  for (const id of ['text', 5, uuid]) {
    const sent = full(id);
    const found = await echoed(sender, receiver, sent);
    for (const [name, value] of Object.entries(sent)) {
      const plain = (it) => (it instanceof Date ? it.getTime() : Buffer.isBuffer(it) && name === 'user_id' ? it.toString() : it);
      assert.deepStrictEqual(plain(found[name]), value, name);
    }
  }
  for (let number = 0; number < 500; number += 1) {
    assert.strictEqual((await echoed(sender, receiver, { body: number })).body, number);
  }
  for (const node of ['rejected', 'released', 'modified']) {
    const [kind, state] = await outcome(connection.open_sender(node), { body: node });
    // rhea has no event of its own for modified.
    assert.strictEqual(kind, node === 'modified' ? 'released' : node);
    assert.strictEqual(state.constructor.composite_type, node);
    if (node === 'rejected') assert.strictEqual(state.error.condition, 'test:rejected');
  }
  for (const [open, event] of [['open_sender', 'sender_error'], ['open_receiver', 'receiver_error']]) {
    const link = connection[open]('refused');
    await next(link, event);
    assert.strictEqual(link.error.condition, 'amqp:not-found');
    assert.match(link.error.description, /no node `refused`/);
  }
  await drained(connection);
  connection.close();
  await next(connection, 'connection_close');
  process.stdout.write('ok\n');
}

async function drained(connection) {
  const three = connection.open_receiver({ source: 'three', credit_window: 0 });
  await next(three, 'receiver_open');
  const found = [];
  three.on('message', (context) => found.push(context.message.body));
  const end = next(three, 'receiver_drained');
  three.drain = true;
  three.add_credit(10);
  await end;
  assert.deepStrictEqual(found, [0, 1, 2]);
}

function server() {
  const container = rhea.create_container();
  const echoes = [];
  const waiting = [];
  const left = new Map();
  const pump = () => {
    while (waiting.length && echoes.length && echoes.at(-1).sendable()) echoes.at(-1).send(waiting.shift());
  };
  const opening = (link, address) => {
    if (address === 'refused') {
      link.set_source(null);
      link.set_target(null);
      link.close({ condition: 'amqp:not-found', description: 'no node `refused`' });
      return false;
    }
    link.set_source(link.source);
    link.set_target(link.target);
    return true;
  };
  container.on('receiver_open', ({ receiver }) => opening(receiver, receiver.target.address));
  container.on('sender_open', ({ sender }) => {
    if (!opening(sender, sender.source.address)) return;
    if (sender.source.address === 'echo') echoes.push(sender);
    if (sender.source.address === 'three') left.set(sender, [0, 1, 2]);
  });
  container.on('message', ({ receiver, message, delivery }) => {
    const { address } = receiver.target;
    if (address === 'rejected') delivery.reject({ condition: 'test:rejected', description: 'as asked' });
    else if (address === 'released') delivery.release();
    else if (address === 'modified') delivery.modified({ delivery_failed: true });
    else delivery.accept();
    if (address === 'echo') {
      waiting.push(message);
      pump();
    }
  });
  const sendable = ({ sender }) => {
    const numbers = left.get(sender) || [];
    while (numbers.length && sender.sendable()) sender.send({ body: numbers.shift() });
    pump();
  };
  container.on('sendable', sendable);
  container.on('sender_draining', (context) => {
    sendable(context);
    context.sender.set_drained(true);
  });
  container.on('disconnected', () => {
    echoes.length = 0;
    waiting.length = 0;
  });
  container.options = { autoaccept: false };
  const listener = container.listen({
    port: 0, host: '127.0.0.1', autoaccept: false, receiver_options: { autoaccept: false, credit_window: 10 },
  });
  container.sasl_server_mechanisms.enable_anonymous();
  container.sasl_server_mechanisms.enable_plain((user, password) => user === 'user' && password === 'secret');
  listener.on('listening', () => process.stdout.write(`listening ${listener.address().port}\n`));
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}

if (process.argv[2] === 'client') {
  client(process.argv[3], process.argv[4]).then(() => process.exit(0), (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  });
} else {
  server();
}
