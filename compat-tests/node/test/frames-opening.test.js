// Opening a connection, frame by frame (specification 9.1).
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { connect, connectMany, RawClient, rejected } from '../lib/raw.js';
import { api, send } from '../lib/rest.js';
import { demoApp, skipWithoutBinary, startServer } from '../lib/server.js';
import { app, namedApp, skipWithout, target } from '../lib/target.js';
import { within } from '../lib/wait.js';

const STOCK = 'protocol=7&client=js&version=8.6.0&flash=false';

test('S001 S002 S003 S004 the first frame is the greeting, with its data as a string', async (t) => {
  const client = await connect(t, { query: STOCK });
  const { event, data, ...rest } = client.greeting;
  assert.equal(event, 'pusher:connection_established');
  assert.deepEqual(rest, {});
  assert.equal(typeof data, 'string');
  const { socket_id: socketId, activity_timeout: timeout } = JSON.parse(data);
  assert.match(socketId, /^\d+\.\d+$/);
  assert.ok(Number.isInteger(timeout) && timeout > 0);
  await client.quiet();
});

for (const [numbers, what, query] of [
  ['S005', 'no parameters', ''],
  ['S006', 'protocol 5 (Java, .NET)', 'client=java-client&protocol=5&version=2.4.4'],
  ['S007', 'protocol 6 (Pysher)', 'client=Pysher&version=1.0.8&protocol=6'],
  ['S010', 'a strange version', 'protocol=7&client=js&version=garbage'],
  ['S011', 'unknown parameters', `${STOCK}&foo=1&protocol_x=%20`],
]) {
  test(`${numbers} a connection with ${what} is accepted`, async (t) => {
    const client = await connect(t, { query });
    assert.equal(typeof client.greeting.data, 'string');
  });
}

test('S005 S019 a server told to be strict refuses a client without a protocol version with 4008', {
  skip: skipWithoutBinary,
}, async (t) => {
  const server = await startServer(t, { server: { require_protocol_version: true } });
  await rejected(t, 4008, { base: server.ws, query: 'client=js&version=8.6.0' });
  await connect(t, { base: server.ws });
});

for (const [numbers, what, code, options] of [
  ['S008 S019', 'protocol 3', 4007, { query: 'protocol=3&client=js&version=1.0' }],
  ['S009 S019', 'protocol 8', 4007, { query: 'protocol=8&client=js&version=8.6.0' }],
  ['S009 S019', 'a protocol that is no number', 4007, { query: 'protocol=abc' }],
  ['S012 S019', 'an unknown key', 4001, { path: '/app/unknown-key', query: STOCK }],
  ['S013 S019', 'no key', 4001, { path: '/app/', query: STOCK }],
  ['S014 S019', 'another path', 4005, { path: '/nope', query: STOCK }],
]) {
  test(`${numbers} ${what} is refused with ${code} after the upgrade`, (t) => rejected(t, code, options));
}

test('S015 S019 a disabled app is refused with 4003', { skip: skipWithout('disabled') }, (t) =>
  rejected(t, 4003, { app: namedApp('disabled') }));

test('S016 S019 an app that requires TLS is refused with 4000 over plain ws', { skip: skipWithout('tls') }, (t) =>
  rejected(t, 4000, { app: namedApp('tls') }));

test('S017 S019 an app at its quota refuses one more with 4004, and takes one when one has left', {
  skip: skipWithout('small'),
}, async (t) => {
  const small = namedApp('small');
  let [one, two] = await connectMany(t, 2, { app: small });
  for (let round = 0; round < 3; round += 1) {
    await rejected(t, 4004, { app: small });
    await Promise.all([one.quiet(), two.quiet()]);
    await one.end();
    [one, two] = [two, await connectAgain(t, small)];
  }
  await rejected(t, 4004, { app: small });
});

/** The server notices a close a moment later than the client that made it. */
async function connectAgain(t, small, tries = 100) {
  const client = new RawClient(t, { app: small });
  const { event } = await client.next();
  if (event === 'pusher:connection_established') return client;
  assert.ok(tries > 0, 'the freed place was never given away');
  return connectAgain(t, small, tries - 1);
}

test('S018 S019 an origin that is not on the list is refused with 4009', { skip: skipWithout('origin') }, async (t) => {
  const guarded = namedApp('origin');
  await rejected(t, 4009, { app: guarded, origin: 'https://evil.example' });
  await rejected(t, 4009, { app: guarded, origin: 'https://example.com.evil.example' });
  await connect(t, { app: guarded, origin: 'https://example.com' });
  await connect(t, { app: guarded, origin: 'https://deep.allowed.example' });
});

test('S020 the sub-protocol of the Swift client is selected', async (t) => {
  const client = await connect(t, { protocols: ['pusher-channels-protocol-7'] });
  assert.equal(client.ws.protocol, 'pusher-channels-protocol-7');
});

test('S021 no sub-protocol is selected when none was offered', async (t) => {
  const client = await connect(t);
  const response = await client.upgraded;
  assert.equal(response.headers['sec-websocket-protocol'], undefined);
  assert.equal(response.headers['sec-websocket-extensions'], undefined);
});

test('S022 repeated slashes in the path are one', (t) => connect(t, { path: `//app/${app.key}`, query: STOCK }));

test('S023 S146 a configured prefix leads to the same doors', { skip: skipWithoutBinary }, async (t) => {
  const server = await startServer(t, { server: { path_prefix: '/ws' } });
  const client = await connect(t, { base: server.ws, path: `/ws/app/${app.key}` });
  await client.join('news');
  const behind = { base: server.http, prefix: '/ws' };
  const reply = await api('POST', '/events', { body: { name: 'e', data: 'x', channels: ['news'] }, ...behind });
  assert.equal(reply.status, 200);
  assert.deepEqual(await client.next(), { event: 'e', channel: 'news', data: 'x' });
  assert.deepEqual((await api('GET', '/channels', behind)).json, { channels: { news: {} } });
});

test('S024 a request for a connection that is no upgrade is answered 426', async () => {
  const reply = await send({ method: 'GET', target: `/app/${app.key}?${STOCK}` });
  assert.equal(reply.status, 426);
});

test('S025 no two of 10 000 consecutive connections share a socket id', async () => {
  const ids = new Set();
  const request = [
    `GET /app/${app.key}?${STOCK} HTTP/1.1`, `Host: ${target.wsHost}:${target.wsPort}`, 'Connection: Upgrade', 'Upgrade: websocket',
    'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', '\r\n',
  ].join('\r\n');
  const greet = () => new Promise((resolve, reject) => {
    const socket = net.connect(target.wsPort, target.wsHost, () => socket.write(request));
    let text = '';
    socket.on('error', reject);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const id = /socket_id\\":\\"(\d+\.\d+)/.exec(text)?.[1];
      if (!id) return;
      socket.resetAndDestroy();
      resolve(id);
    });
  });
  const lane = async (count) => {
    for (let n = 0; n < count; n += 1) ids.add(await within(greet(), 'a greeting'));
  };
  await Promise.all(Array.from({ length: 20 }, () => lane(500)));
  assert.equal(ids.size, 10_000);
});

test('S026 a draining server closes its connections with 4200', { skip: skipWithoutBinary }, async (t) => {
  const server = await startServer(t, { server: { drain_seconds: 1 } });
  const clients = await connectMany(t, 5, { base: server.ws });
  server.signal('SIGTERM');
  for (const client of clients) {
    assert.equal((await client.closing()).code, 4200);
    assert.equal(client.frames.waiting, 0, 'an established connection needs no error frame');
  }
  assert.deepEqual(await server.exited, { code: 0, signal: null });
});

test('S026 S019 a server that drains refuses newcomers with 4200', { skip: skipWithoutBinary }, async (t) => {
  const server = await startServer(t, { server: { drain_seconds: 5 } });
  const established = await connectMany(t, 150, { base: server.ws });
  server.signal('SIGTERM');
  await Promise.race(established.map((client) => client.closing()));
  await rejected(t, 4200, { base: server.ws });
});

test('S026 S019 a newcomer is told 4200 even when the drain is over a moment later', { skip: skipWithoutBinary }, async (t) => {
  const server = await startServer(t, { server: { drain_seconds: 5 } });
  const established = await connectMany(t, 10, { base: server.ws });
  server.signal('SIGTERM');
  await Promise.race(established.map((client) => client.closing()));
  await rejected(t, 4200, { base: server.ws });
});

test('S027 S019 a full server refuses with 4100, not with 4200', { skip: skipWithoutBinary }, async (t) => {
  const server = await startServer(t, { server: { max_connections: 3 }, apps: [demoApp()] });
  const clients = await connectMany(t, 3, { base: server.ws });
  await rejected(t, 4100, { base: server.ws });
  await Promise.all(clients.map((client) => client.quiet()));
});
