// A Pusher server that says what a test has it say.
import assert from 'node:assert/strict';
import { WebSocketServer } from 'ws';
import { Inbox } from './inbox.js';

/** Listens on a free port. `connection()` resolves to the next client that connects. */
export async function startServer(t) {
  const arrivals = new Inbox('connections');
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await new Promise((resolve) => server.on('listening', resolve));
  let count = 0;
  server.on('connection', (socket) => {
    count += 1;
    arrivals.push(new Connection(socket, `7.${count}`));
  });
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  return { port: server.address().port, connection: () => arrivals.next() };
}

class Connection {
  constructor(socket, socketId) {
    this.socket = socket;
    this.socketId = socketId;
    this.frames = new Inbox(`the frames of ${socketId}`);
    socket.on('message', (bytes) => this.frames.push(JSON.parse(bytes)));
    this.send('pusher:connection_established', undefined, {
      data: JSON.stringify({ socket_id: socketId, activity_timeout: 120 }),
    });
  }

  send(event, channel, more = {}) {
    this.socket.send(JSON.stringify({ event, channel, ...more }));
  }

  /** The data of the next `pusher:subscribe`, which must be the next frame. */
  async subscription(channel) {
    const { event, data } = await this.frames.next();
    assert.equal(event, 'pusher:subscribe');
    assert.equal(data.channel, channel);
    return data;
  }

  succeed(channel, replay, data = '{}') {
    this.send('pusher_internal:subscription_succeeded', channel, { data, ...(replay && { replay: { v: 1, ...replay } }) });
  }

  resume(channel, replay) {
    this.send('pusher_internal:replay_resumed', channel, { data: '{}', replay: { v: 1, ...replay } });
  }

  /** Takes the next subscription and answers it; resolves to what it asked of replay. */
  async accept(channel, replay, data) {
    const { replay: asked } = await this.subscription(channel);
    this.succeed(channel, replay, data);
    return asked;
  }

  /** Messages with the serials `first..=last`, each with its serial as data. */
  messages(channel, first, last = first, more = {}) {
    for (let serial = first; serial <= last; serial += 1) this.message(channel, serial, more);
  }

  message(channel, serial, more = {}) {
    this.send('counted', channel, { data: JSON.stringify({ n: serial }), serial, ...more });
  }

  done(channel, serial) {
    this.send('pusher_internal:replay_done', channel, { data: '{}', serial });
  }

  refuse(channel, data) {
    this.send('pusher:error', undefined, { data: { code: null, message: data.error ?? 'refused' } });
    this.send('pusher:subscription_error', channel, { data });
  }

  /** Closes with the code after which pusher-js comes back at once. */
  drop() {
    this.socket.close(4200);
  }
}
