'use strict';
// The program's end of the control line: commands in, answers and events out, as JSON lines. See tests/python/control.py.

const net = require('node:net');
const readline = require('node:readline');

class Control {
  constructor(name) {
    const address = process.env.HOLM_E2E_CONTROL;
    if (address) {
      const colon = address.lastIndexOf(':');
      const socket = net.connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)) });
      this.input = socket;
      this.output = socket;
      this.event('hello', { name });
    } else {
      this.input = process.stdin;
      this.output = process.stdout;
    }
  }

  event(name, members) {
    this.write({ event: name, ...members });
  }

  // Runs commands, one after the other, until the line ends.
  async serve(commands) {
    for await (const line of readline.createInterface({ input: this.input })) {
      const command = JSON.parse(line);
      try {
        const action = commands[command.do];
        if (!action) throw new Error(`there is no command ${command.do}`);
        const ok = await action(command);
        this.write({ id: command.id, ok: ok === undefined ? null : ok });
      } catch (error) {
        this.write({ id: command.id, error: { type: error.name || 'Error', message: explain(error) } });
      }
    }
  }

  write(value) {
    this.output.write(JSON.stringify(value) + '\n');
  }
}

function explain(error) {
  const parts = [`${error.name}: ${error.message}`];
  if (error.statusCode !== undefined) parts.push(`status ${error.statusCode}`);
  if (error.responseBody) parts.push(String(error.responseBody));
  return parts.join(' <- ');
}

module.exports = { Control, explain };
