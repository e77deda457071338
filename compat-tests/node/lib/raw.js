// A client made of bare frames, for what the client libraries hide or refuse to send.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { app as defaultApp, target } from './target.js';
import { DEADLINE_MS, Inbox, within } from './wait.js';

const PLAIN_CLIENT = 'protocol=7&client=compat-tests&version=1.0';

export class RawClient {
  constructor(t, { app = defaultApp, path, query = PLAIN_CLIENT, base = target.ws, ...options } = {}) {
    this.app = app;
    this.frames = new Inbox('the frames of a raw client');
    const route = path ?? `/app/${app.key}`;
    this.ws = new WebSocket(`${base}${route}${query ? `?${query}` : ''}`, options.protocols ?? [], {
      perMessageDeflate: false,
      ...options,
    });
    this.pings = new Inbox('the control pings of a raw client');
    this.pongs = new Inbox('the control pongs of a raw client');
    this.ws.on('message', (bytes) => this.frames.push(JSON.parse(bytes.toString('utf8'))));
    this.ws.on('ping', (payload) => this.pings.push(payload));
    this.ws.on('pong', (payload) => this.pongs.push(payload.toString()));
    this.upgraded = new Promise((resolve, reject) => {
      this.ws.on('upgrade', resolve);
      this.ws.on('error', reject);
      this.ws.on('unexpected-response', (_, response) => reject(new Error(`HTTP ${response.statusCode} to an upgrade`)));
    });
    this.upgraded.catch(() => {});
    this.closed = new Promise((resolve) => {
      this.ws.on('close', (code, reason) => {
        this.frames.end(`the connection was closed with ${code}`);
        resolve({ code, reason: reason.toString() });
      });
    });
    t.after(() => this.ws.terminate());
  }

  /** Takes the next frame. */
  next(what) {
    return this.frames.next(what);
  }

  /** Takes frames up to and including the first named `event`. */
  until(event, channel) {
    const matches = (frame) => frame.event === event && (channel === undefined || frame.channel === channel);
    return this.frames.until(matches, `${event} ${channel ?? ''}`);
  }

  sendText(text) {
    this.ws.send(text);
  }

  send(event, data, more = {}) {
    this.sendText(JSON.stringify({ event, data, ...more }));
  }

  /** Waits for the greeting and keeps the socket id. */
  async established() {
    await within(this.upgraded, 'the upgrade');
    const frame = await this.next('pusher:connection_established');
    assert.equal(frame.event, 'pusher:connection_established', JSON.stringify(frame));
    this.greeting = frame;
    this.socketId = JSON.parse(frame.data).socket_id;
    return this;
  }

  /** Waits until the server has closed the connection. */
  closing(deadlineMs = DEADLINE_MS) {
    return within(this.closed, 'the server to close the connection', deadlineMs);
  }

  /** The data of a `pusher:subscribe` this connection is entitled to. */
  ticket(channel, member) {
    const channelData = member === undefined || typeof member === 'string' ? member : JSON.stringify(member);
    if (!/^(private|presence)-/.test(channel)) return { channel };
    const auth = this.app.channelAuth(this.socketId, channel, channelData);
    return channelData === undefined ? { channel, auth } : { channel, auth, channel_data: channelData };
  }

  subscribe(data) {
    this.send('pusher:subscribe', data);
  }

  /** Subscribes with a valid ticket; resolves to the success frame, which must be the next one. */
  async join(channel, member) {
    this.subscribe(this.ticket(channel, member));
    const frame = await this.next(`subscription_succeeded of ${channel}`);
    assert.equal(frame.event, 'pusher_internal:subscription_succeeded', JSON.stringify(frame));
    assert.equal(frame.channel, channel);
    return frame;
  }

  leave(channel) {
    this.send('pusher:unsubscribe', { channel });
  }

  async signIn(user) {
    const userData = typeof user === 'string' ? user : JSON.stringify(user);
    this.send('pusher:signin', { auth: this.app.userAuth(this.socketId, userData), user_data: userData });
    const frame = await this.next('pusher:signin_success');
    assert.equal(frame.event, 'pusher:signin_success', JSON.stringify(frame));
    return frame;
  }

  /** Proves that nothing was waiting: a ping is answered by the very next frame. */
  async quiet() {
    this.send('pusher:ping', {});
    const frame = await this.next('pusher:pong');
    assert.equal(frame.event, 'pusher:pong', `expected silence, got ${JSON.stringify(frame)}`);
  }

  /** The next frame is an error with this code (null: a refusal that leaves the connection open). */
  async refused(code = null, text = /./) {
    const frame = await this.next('pusher:error');
    assertError(frame, code, text);
    if (code === null) assert.equal(this.ws.readyState, WebSocket.OPEN);
    return frame;
  }

  end() {
    this.ws.close();
    return this.closing();
  }
}

export function assertError(frame, code, text = /./) {
  assert.equal(frame.event, 'pusher:error', JSON.stringify(frame));
  assert.equal(typeof frame.data, 'object', 'the data of pusher:error is an object');
  assert.equal(frame.data.code, code, JSON.stringify(frame));
  assert.equal(typeof frame.data.message, 'string');
  assert.match(frame.data.message, text);
}

/** An established connection. */
export function connect(t, options) {
  return new RawClient(t, options).established();
}

export function connectMany(t, count, options) {
  return Promise.all(Array.from({ length: count }, () => connect(t, options)));
}

/** A connection the server accepts at the HTTP level, explains itself on, and closes. */
export async function rejected(t, code, options) {
  const client = new RawClient(t, options);
  await within(client.upgraded, 'a 101 before the refusal');
  const frame = await client.next('the refusing pusher:error');
  assertError(frame, code);
  const closing = await client.closing();
  assert.equal(closing.code, code, 'close frame and error frame carry the same code');
  assert.ok(Buffer.byteLength(closing.reason) <= 123);
  assert.equal(client.frames.waiting, 0, 'nothing but the error frame');
  return { frame, closing };
}
