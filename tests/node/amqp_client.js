'use strict';
// A client of AMQP 1.0 (rhea) that says what a test tells it to, and tells what came with the types of AMQP. Steered over the
// control line.
//
// Commands: `open`, `close`, `cut`, `begin`, `end`, `put_token`, `attach`, `detach`, `send`, `credit`, `settle`. Connections,
// sessions and links go by names that the test gives.
// Events: `message`, `settled`, `outcome`, `detached`, `ended`, `closed`, `disconnected`, `sendable`, `drained`.
//
// Values with a type of AMQP: {"uuid": "…"}, {"ulong": 0}, {"int": 1}, {"long": 1}, {"symbol": "…"}, {"binary": "…"}; a plain
// string is a string. So they go both ways.

const fs = require('node:fs');
const tls = require('node:tls');
const rhea = require('rhea');
const WebSocket = require('ws');
const messages = require('rhea/lib/message.js');
const { Control } = require('./control');

const { types } = rhea;
const TIMEOUT = 60000;

// What came is kept as it came: rhea forgets the types.
const decode = messages.decode;
messages.decode = (buffer) => Object.assign(decode(buffer), { raw: buffer });

class Refused extends Error {
  constructor(error) {
    super(`${error?.description ?? error?.message ?? ''}`);
    this.name = error?.condition ?? 'none';
    this.info = error?.info;
  }
}

function given(value) {
  if (value === null || typeof value !== 'object') return value;
  const [[type, content]] = Object.entries(value);
  if (type === 'uuid') return types.wrap_uuid(rhea.string_to_uuid(content));
  if (type === 'binary') return types.wrap_binary(Buffer.from(content));
  if (type === 'list') return types.wrap_list(content);
  return types[`wrap_${type}`](content);
}

// An id in the properties of a message, of which rhea chooses the type by that of the value.
function id(value) {
  if (value === undefined || typeof value === 'string') return value;
  if (value.uuid !== undefined) return rhea.string_to_uuid(value.uuid);
  return value.ulong;
}

function typed(value) {
  const name = value.type.name.replace(/^Small|\d+$/g, '').replace(/^(True|False)$/, 'Boolean');
  if (name === 'Null') return null;
  if (name === 'Str') return value.value;
  if (name === 'Sym') return { symbol: value.value };
  if (name === 'Uuid') return { uuid: rhea.uuid_to_string(value.value) };
  if (name === 'Vbin') return { binary: value.value.toString() };
  if (name === 'CharUTF') return { char: value.value };
  return { [name.toLowerCase()]: value.value };
}

const PROPERTIES = ['message_id', 'user_id', 'to', 'subject', 'reply_to', 'correlation_id', 'content_type', 'content_encoding',
  'absolute_expiry_time', 'creation_time', 'group_id', 'group_sequence', 'reply_to_group_id'];

function fields(list) {
  const present = list.map((item, index) => [PROPERTIES[index], typed(item)]).filter(([, value]) => value !== null);
  return Object.fromEntries(present);
}

function map(items) {
  const found = {};
  for (let index = 0; index + 1 < items.length; index += 2) found[items[index].value] = typed(items[index + 1]);
  return found;
}

function told(raw) {
  const message = { properties: {}, annotations: {}, application: {}, body: { kind: 'none', count: 0, text: '' } };
  const reader = new types.Reader(raw);
  while (reader.remaining()) {
    const section = reader.read();
    const code = section.descriptor.value;
    if (code === 0x72) message.annotations = map(section.value);
    else if (code === 0x73) message.properties = fields(section.value);
    else if (code === 0x74) message.application = map(section.value);
    else if (code === 0x75) {
      const { count, text } = message.body;
      message.body = { kind: 'data', count: count + 1, text: text + section.value.toString() };
    } else if (code === 0x77) message.body = { kind: 'value', value: typed(section) };
  }
  return message;
}

function bare(command) {
  const message = { body: body(command) };
  for (const [name, value] of Object.entries(command.properties ?? {})) {
    if (name.endsWith('_id') && name !== 'user_id') message[name] = id(value);
    else if (name === 'user_id') message[name] = Buffer.from(value, 'latin1');
    else message[name] = value;
  }
  const wrapped = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, given(value)]));
  if (command.annotations) message.message_annotations = wrapped(command.annotations);
  if (command.application) message.application_properties = wrapped(command.application);
  return message;
}

function body({ body: text = '', kind = 'data', size }) {
  const content = size === undefined ? text : 'x'.repeat(size);
  if (kind === 'data') return messages.data_section(Buffer.from(content));
  if (kind === 'sections') return messages.data_sections(content.map((one) => Buffer.from(one)));
  if (kind === 'sequence') return messages.sequence_section(content);
  return given(content);
}

function outcome(delivery) {
  const state = delivery.remote_state;
  const error = state?.error;
  return {
    outcome: state?.constructor?.composite_type ?? null,
    settled: delivery.remote_settled,
    ...(error ? { condition: error.condition, description: error.description, info: error.info } : {}),
  };
}

function timely(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what} did not come in time`)), TIMEOUT); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Waits for the first of several events; each gives its context, and those named as failures throw.
function first(emitter, good, bad) {
  return timely(new Promise((resolve, reject) => {
    const listeners = [];
    const listen = (name, done) => {
      const listener = (context) => {
        for (const [known, its] of listeners) emitter.removeListener(known, its);
        done(context ?? {});
      };
      listeners.push([name, listener]);
      emitter.on(name, listener);
    };
    for (const name of good) listen(name, resolve);
    for (const name of bad) listen(name, (context) => reject(new Refused(reason(context, name))));
  }), good.join(' or '));
}

function reason(context, name) {
  if (context.error) return context.error;
  const end = name.startsWith('sender') ? context.sender : name.startsWith('receiver') ? context.receiver
    : name.startsWith('session') ? context.session : context.connection;
  return end?.error ?? { condition: name, description: 'no error was told' };
}

class Program {
  constructor() {
    this.control = new Control('amqp');
    this.connections = new Map();
    this.links = new Map();
    this.deliveries = new Map();
    this.lastDelivery = 0;
  }

  async serve() {
    const names = ['open', 'close', 'cut', 'begin', 'end', 'put_token', 'attach', 'detach', 'send', 'credit', 'settle'];
    await this.control.serve(Object.fromEntries(names.map((name) => [name, (command) => this[name](command)])));
    process.exit(0);
  }

  async open(command) {
    const { connection: name, host, port = 5671, path, ca, certificate, key, mechanism, user, password, idle } = command;
    const secure = { ca: fs.readFileSync(ca) };
    if (certificate) Object.assign(secure, { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) });
    const options = { host, port, reconnect: false, hostname: host, sasl_init_hostname: host, idle_time_out: idle };
    if (command.max_frame) options.max_frame_size = command.max_frame;
    if (path) options.connection_details = rhea.websocket_connect(WebSocket)(`wss://${host}:${port}${path}`, ['AMQPWSB10'], secure);
    else {
      const connect = (_port, _host, _options, callback) => tls.connect({ host, port, ...secure }, callback);
      options.connection_details = () => ({ connect, host, port });
    }
    if (mechanism === 'PLAIN') Object.assign(options, { username: user, password });
    else if (mechanism === 'ANONYMOUS') options.username = 'anonymous';
    else if (mechanism) {
      const says = (callback) => callback(undefined, Buffer.alloc(0));
      options.sasl_mechanisms = { [mechanism]: () => ({ start: says, step: (_, callback) => says(callback) }) };
    }
    const container = rhea.create_container({ autoaccept: false });
    const connection = container.create_connection(options);
    // What is not expected is told, and ends nothing.
    for (const place of [container, connection]) place.on('error', () => {});
    for (const event of ['protocol_error', 'connection_error', 'session_error', 'sender_error', 'receiver_error']) {
      connection.on(event, () => {});
    }
    connection.connect();
    const sessions = new Map();
    this.connections.set(name, { connection, sessions, put: null });
    await first(connection, ['connection_open'], ['connection_error', 'protocol_error', 'disconnected']);
    connection.on('connection_close', (context) => this.control.event('closed', { connection: name, ...explained(context.connection.error) }));
    connection.on('disconnected', () => this.control.event('disconnected', { connection: name }));
    const { open } = connection.remote;
    return { idle: open.idle_time_out ?? null, max_frame: open.max_frame_size, channel_max: open.channel_max };
  }

  of(command) {
    const found = this.connections.get(command.connection);
    if (!found) throw new Error(`there is no connection ${command.connection}`);
    return found;
  }

  session(command) {
    const { connection, sessions } = this.of(command);
    const { connection: its, session: name = 'main' } = command;
    if (!sessions.has(name)) {
      const session = connection.create_session();
      session.begin();
      session.on('session_close', (context) => {
        sessions.delete(name);
        this.control.event('ended', { connection: its, session: name, ...explained(context.session.error) });
      });
      sessions.set(name, session);
    }
    return sessions.get(name);
  }

  async begin(command) {
    await first(this.session(command), ['session_open'], ['session_close']);
  }

  async end(command) {
    this.session(command).close();
  }

  async close(command) {
    const { connection } = this.of(command);
    connection.close();
    await first(connection, ['connection_close', 'disconnected'], []);
  }

  // The network is gone, without a word.
  async cut(command) {
    const { socket } = this.of(command).connection;
    if (socket.destroy) socket.destroy();
    else socket.end();
  }

  async put_token(command) {
    const place = this.of(command);
    if (!place.put) {
      const session = this.session({ ...command, session: 'cbs' });
      const receiver = session.open_receiver({ source: '$cbs', name: 'cbs-receiver', autoaccept: true, credit_window: 100 });
      const sender = session.open_sender({ target: '$cbs', name: 'cbs-sender' });
      place.put = { sender, receiver };
      await first(sender, ['sendable'], ['sender_close']);
    }
    const { sender, receiver } = place.put;
    const answer = first(receiver, ['message'], ['receiver_close']);
    const sent = sender.send({
      to: '$cbs', reply_to: 'cbs', message_id: id(command.message_id),
      application_properties: {
        operation: command.operation ?? 'put-token', type: command.type ?? 'servicebus.windows.net:sastoken', name: command.name ?? 'any',
      },
      body: command.token,
    });
    const { message } = await answer;
    const { application, properties } = told(message.raw);
    return {
      status: application['status-code'], description: application['status-description'],
      correlation_id: properties.correlation_id ?? null, outcome: outcome(sent).outcome,
    };
  }

  async attach(command) {
    const { link: name, role, address, properties, snd, rcv, credit = 0, name: named = name } = command;
    const session = this.session(command);
    const options = { name: named, snd_settle_mode: snd, rcv_settle_mode: rcv, max_message_size: command.max_message_size, autosettle: false };
    if (properties) {
      options.properties = Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, given(value)]));
    }
    const isSender = role === 'sender';
    options[isSender ? 'target' : 'source'] = { address };
    if (!isSender) Object.assign(options, { credit_window: 0, autoaccept: false });
    const link = isSender ? session.open_sender(options) : session.open_receiver(options);
    const closing = first(link, [`${role}_close`], ['disconnected']);
    closing.catch(() => {});
    await first(link, [`${role}_open`], [`${role}_close`]);
    const end = isSender ? link.target : link.source;
    if (!end || end.type?.name === 'Null') {
      const closed = await closing;
      throw new Refused(reason(closed, `${role}_close`));
    }
    this.links.set(name, link);
    const whose = { link: name, connection: command.connection };
    link.undecided = new Set();
    link.on(`${role}_close`, () => {
      for (const giveUp of link.undecided) giveUp(new Refused(link.error));
      if (this.links.get(name) === link) this.links.delete(name);
      this.control.event('detached', { ...whose, ...explained(link.error) });
    });
    if (isSender) {
      link.on('sendable', () => this.control.event('sendable', { ...whose, credit: link.credit }));
      for (const kind of ['accepted', 'rejected', 'released', 'modified', 'settled']) {
        link.on(kind, ({ delivery }) => {
          if (delivery.told) return;
          delivery.told = true;
          delivery.settled = true;
          link.undecided.delete(delivery.lost);
          delivery.decided?.(outcome(delivery));
          this.control.event('outcome', { ...whose, number: delivery.number, ...outcome(delivery) });
        });
      }
      if (!link.sendable()) await first(link, ['sendable'], ['sender_close']);
    } else {
      link.on('message', (context) => this.received(whose, context));
      link.on('settled', ({ delivery }) => {
        delivery.settled = true;
        this.control.event('settled', { ...whose, delivery: delivery.named });
      });
      link.on('receiver_drained', () => this.control.event('drained', whose));
      if (credit) link.add_credit(credit);
    }
    const { attach } = link.remote;
    return {
      snd: attach.snd_settle_mode, rcv: attach.rcv_settle_mode, credit: link.credit,
      max_message_size: attach.max_message_size ?? null, source: link.source?.address ?? null, target: link.target?.address ?? null,
    };
  }

  received(whose, { message, delivery }) {
    this.lastDelivery += 1;
    delivery.named = this.lastDelivery;
    if (delivery.remote_settled) delivery.settled = true;
    else this.deliveries.set(this.lastDelivery, delivery);
    const parts = message.raw ? told(message.raw) : {};
    this.control.event('message', {
      ...whose, delivery: this.lastDelivery, tag_bytes: delivery.tag.length, presettled: delivery.remote_settled,
      format: delivery.format ?? 0, ...parts,
    });
  }

  find(command) {
    const link = this.links.get(command.link);
    if (!link) throw new Error(`there is no link ${command.link}`);
    return link;
  }

  async detach(command) {
    const link = this.find(command);
    if (command.closed === false) link.detach();
    else link.close();
  }

  // Sends; the answer is the outcome, or nothing when it is not waited for.
  async send(command) {
    const link = this.find(command);
    let delivery;
    if (command.tiny) {
      const one = messages.encode({ body: messages.data_section(Buffer.from('x')) });
      const whole = messages.encode({ body: messages.data_sections(Array(command.tiny).fill(one)) });
      delivery = link.send(whole, undefined, 0x80013700);
    } else if (command.batch) {
      const whole = messages.encode({ body: messages.data_sections(command.batch.map((one) => messages.encode(bare(one)))) });
      delivery = link.send(whole, undefined, 0x80013700);
    } else if (command.bytes) {
      delivery = link.send(Buffer.from(command.bytes, 'hex'), undefined, 0);
    } else {
      delivery = link.send(bare(command));
    }
    delivery.number = command.number ?? null;
    if (command.settled) delivery.settled = true;
    if (command.settled || command.wait === false || link.snd_settle_mode === 1) return null;
    const decided = new Promise((resolve, reject) => Object.assign(delivery, { decided: resolve, lost: reject }));
    link.undecided.add(delivery.lost);
    return timely(decided, 'the outcome');
  }

  async credit(command) {
    const link = this.find(command);
    link.drain = Boolean(command.drain);
    link.add_credit(command.credit);
  }

  // Several at once are one disposition, where they are next to each other.
  async settle({ deliveries, delivery, ...how }) {
    for (const name of deliveries ?? [delivery]) this.settleOne(name, how);
  }

  settleOne(name, { outcome: kind, settled = true, failed, undeliverable }) {
    const delivery = this.deliveries.get(name);
    if (!delivery) throw new Error(`there is no delivery ${name}`);
    const states = {
      accepted: () => messages.accepted(), released: () => messages.released(), rejected: () => messages.rejected({ error: { condition: 'test:no' } }),
      modified: () => messages.modified({ delivery_failed: failed, undeliverable_here: undeliverable }),
    };
    delivery.update(settled, states[kind] ? states[kind]().described() : undefined);
    if (settled) this.deliveries.delete(name);
  }
}

function explained(error) {
  return error ? { condition: error.condition, description: error.description, info: error.info ?? {} } : { condition: null };
}

new Program().serve();
