// Delivery, frame by frame (specification 9.8, and 9.13 for what a server must not add).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, connectMany } from '../lib/raw.js';
import { api, publish } from '../lib/rest.js';
import { unique } from '../lib/wait.js';

test('S129 events arrive at every subscriber in the order they were published', async (t) => {
  const clients = await connectMany(t, 3);
  const name = unique('ordered');
  for (const client of clients) await client.join(name);
  for (let n = 1; n <= 100; n += 1) await publish(name, 'count', String(n));
  for (const client of clients) {
    for (let n = 1; n <= 100; n += 1) assert.equal((await client.next()).data, String(n));
  }
});

test('S130 S217 a delivered frame has event, channel and data, and nothing else', async (t) => {
  const client = await connect(t);
  for (const name of [unique('news'), unique('private-a'), unique('presence-a'), unique('cache-a')]) {
    const success = await client.join(name, name.startsWith('presence') ? { user_id: 'u-1' } : undefined);
    assert.deepEqual(Object.keys(success).sort(), ['channel', 'data', 'event']);
    if (name.startsWith('cache')) assert.deepEqual(Object.keys(await client.next()).sort(), ['channel', 'data', 'event']);
    await publish(name, 'event', 'x');
    assert.deepEqual(await client.next(), { event: 'event', channel: name, data: 'x' });
  }
});

test('S131 data is delivered as the text that was published', async (t) => {
  const client = await connect(t);
  const name = unique('text');
  await client.join(name);
  for (const data of ['hello', '{"a":1}', ' { "a" : 1 } ', '"quoted"', '12', 'null', '1e400', '{"a":1,"a":2}', '']) {
    await publish(name, 'event', data);
    assert.deepEqual(await client.next(), { event: 'event', channel: name, data });
  }
});

test('S132 S158 the excluded connection gets the event on none of its channels, all others on each', async (t) => {
  const [sender, other] = await connectMany(t, 2);
  const names = [unique('x'), unique('y')];
  for (const client of [sender, other]) for (const name of names) await client.join(name);
  await publish(names, 'event', '', { socket_id: sender.socketId });
  const reached = [(await other.next()).channel, (await other.next()).channel];
  assert.deepEqual(reached.sort(), [...names].sort());
  await sender.quiet();
  await other.quiet();
});

test('S133 excluding a connection that does not exist excludes nobody', async (t) => {
  const client = await connect(t);
  const name = unique('x');
  await client.join(name);
  for (const socketId of ['1.1', '0.0', '99999999999999999999.1', '007.008']) {
    await publish(name, 'event', socketId, { socket_id: socketId });
    assert.equal((await client.next()).data, socketId);
  }
});

test('S134 S162 any text survives in data and in the event name', async (t) => {
  const client = await connect(t);
  const name = unique('strange');
  await client.join(name);
  const texts = ['\u0000\u001f', '</script>', 'é日本😀', '\u2028', '\\"\\\\', '\ud83d\ude00'.repeat(50), '\ufeff'];
  for (const data of texts) {
    await publish(name, data, data);
    const frame = await client.next();
    assert.deepEqual([frame.event, frame.data], [data, data]);
  }
  await publish(name, 'App\\Events\\OrderPaid', '');
  assert.equal((await client.next()).event, 'App\\Events\\OrderPaid');
});

test('S135 a reader that does not read is closed with 4100, and the others miss nothing', async (t) => {
  const [slow, quick] = await connectMany(t, 2);
  const name = unique('flood');
  await slow.join(name);
  await quick.join(name);
  slow.ws._socket.pause();
  const data = 'x'.repeat(10_000);
  const batches = 150;
  for (let n = 0; n < batches; n += 1) {
    const batch = Array.from({ length: 10 }, (_, k) => ({ name: String(n * 10 + k), channel: name, data }));
    assert.equal((await api('POST', '/batch_events', { body: { batch } })).status, 200);
  }
  for (let n = 0; n < batches * 10; n += 1) assert.equal((await quick.next()).event, String(n));
  slow.ws._socket.resume();
  assert.equal((await slow.closing()).code, 4100);
  const received = slow.frames.drain().filter(({ event }) => event !== 'pusher:error').map(({ event }) => Number(event));
  assert.deepEqual(received, received.map((_, n) => n), 'nothing was skipped before the close');
  assert.ok(received.length < batches * 10);
});
