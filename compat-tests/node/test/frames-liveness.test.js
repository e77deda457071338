// Liveness and framing (specification 9.2).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { connect } from '../lib/raw.js';
import { publish } from '../lib/rest.js';
import { namedApp, skipWithout } from '../lib/target.js';
import { unique, within } from '../lib/wait.js';

for (const [what, text] of [
  ['pusher-js', '{"event":"pusher:ping","data":{}}'],
  ['Java', '{"event": "pusher:ping"}'],
  ['Pysher', '{"event":"pusher:ping","data":""}'],
]) {
  test(`S028 the ping of ${what} is answered by one pong`, async (t) => {
    const client = await connect(t);
    client.sendText(text);
    const pong = await client.next();
    assert.equal(pong.event, 'pusher:pong');
    assert.ok(pong.data === undefined || typeof pong.data === 'string');
    await client.quiet();
  });
}

test('S029 a pong nobody asked for is ignored', async (t) => {
  const client = await connect(t);
  for (const data of [{}, '', undefined]) client.send('pusher:pong', data);
  await client.quiet();
});

test('S030 a control ping is answered by a control pong with its payload', async (t) => {
  const client = await connect(t);
  for (const payload of ['abc', '', 'x'.repeat(125)]) {
    client.ws.ping(payload);
    assert.equal(await client.pongs.next(), payload);
  }
});

test('S031 a client that pings all the time is not limited', async (t) => {
  const client = await connect(t);
  for (let n = 0; n < 300; n += 1) client.ws.ping(String(n));
  for (let n = 0; n < 300; n += 1) assert.equal(await client.pongs.next(), String(n));
  await client.quiet();
});

test('S032 S033 S035 a silent client is probed with control pings and stays when it answers at that level only', {
  skip: skipWithout('lively'),
}, async (t) => {
  const client = await connect(t, { app: namedApp('lively') });
  await client.pings.next('the first control ping', 20_000);
  await client.pings.next('the second control ping', 20_000);
  assert.equal(client.frames.waiting, 0, 'the server never asks with a JSON ping');
  await client.quiet();
});

test('S034 S035 a client that answers nothing is closed with 4201, although the server kept talking to it', {
  skip: skipWithout('lively'),
}, async (t) => {
  const lively = namedApp('lively');
  const client = await connect(t, { app: lively, autoPong: false });
  const name = unique('chatter');
  await client.join(name);
  const chatter = setInterval(() => publish(name, 'tick', '', { app: lively }).catch(() => {}), 500);
  t.after(() => clearInterval(chatter));
  assert.equal((await client.closing(30_000)).code, 4201);
});

for (const text of ['not json', '{"data":{}}', '[]', '"x"', '5', 'null', '', '{"event":5}', '{"event":null}', '{']) {
  test(`S036 the frame ${JSON.stringify(text)} is answered with an error and nothing worse`, async (t) => {
    const client = await connect(t);
    client.sendText(text);
    await client.refused();
    await client.quiet();
  });
}

test('S037 a binary frame closes the connection with 1003', async (t) => {
  const client = await connect(t);
  client.ws.send(Buffer.from('{"event":"pusher:ping"}'));
  assert.equal((await client.closing()).code, 1003);
});

test('S038 a message over the limit closes the connection with 1009', async (t) => {
  const client = await connect(t);
  client.send('pusher:ping', 'x'.repeat(70_000));
  assert.equal((await client.closing()).code, 1009);
});

test('S038 a message over the limit is noticed across its fragments', async (t) => {
  const client = await connect(t);
  client.ws.send(`{"event":"pusher:ping","data":"${'x'.repeat(30_000)}`, { fin: false });
  client.ws.send('x'.repeat(30_000), { fin: false });
  client.ws.send(`${'x'.repeat(30_000)}"}`, { fin: true });
  assert.equal((await client.closing()).code, 1009);
});

test('S038 a message just under the limit is read', async (t) => {
  const client = await connect(t);
  client.send('pusher:ping', 'x'.repeat(64_000));
  assert.equal((await client.next()).event, 'pusher:pong');
});

test('S039 a message in several fragments, with a control ping between them, is one message', async (t) => {
  const client = await connect(t);
  const name = unique('fragmented');
  const text = JSON.stringify({ event: 'pusher:subscribe', data: { channel: name, note: 'ü€😀' } });
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 1) {
    const last = at === bytes.length - 1;
    client.ws.send(bytes.subarray(at, at + 1), { fin: last, binary: false });
    if (at === 10) client.ws.ping('between');
  }
  assert.equal(await client.pongs.next(), 'between');
  assert.deepEqual(await client.next(), { event: 'pusher_internal:subscription_succeeded', channel: name, data: '{}' });
});

test('S040 an unknown event is answered with an error that names it', async (t) => {
  const client = await connect(t);
  for (const event of ['pusher:frobnicate', 'pusher_internal:frobnicate', 'frobnicate']) {
    client.send(event, {});
    await client.refused(null, /frobnicate/);
  }
  await client.quiet();
});

test('S041 unknown members of a client frame are ignored', async (t) => {
  const client = await connect(t);
  client.send('pusher:ping', {}, { userId: null, extra: { deep: [1] }, id: 7 });
  assert.equal((await client.next()).event, 'pusher:pong');
});

for (const protocol of [5, 6, 7]) {
  test(`S042 every frame to a protocol ${protocol} client carries its data as a string, errors excepted`, async (t) => {
    const client = await connect(t, { query: `protocol=${protocol}&client=compat-tests&version=1.0` });
    const [name, presence, cache] = [unique('news'), unique('presence-a'), unique('cache-a')];
    const user = unique('user');
    client.subscribe({ channel: name });
    client.subscribe(client.ticket(presence, { user_id: 'u-1', user_info: { a: 1 } }));
    client.subscribe({ channel: cache });
    client.subscribe({ channel: name });
    const userData = JSON.stringify({ id: user, watchlist: ['u-2'] });
    client.send('pusher:signin', { auth: client.app.userAuth(client.socketId, userData), user_data: userData });
    client.send('pusher:ping', {});
    const frames = [client.greeting];
    // Several nodes grant in an order of their own; only who is in the channel sees others come and go.
    const granted = () => frames.some((frame) => frame.channel === presence && /succeeded$/.test(frame.event));
    while (!granted()) frames.push(await client.next());
    const other = await connect(t);
    await other.join(presence, { user_id: 'u-2' });
    await other.end();
    frames.push(...await client.until('pusher_internal:member_removed'));
    await publish(name, 'event', { a: 1 });
    frames.push(...await client.until('event'));
    for (const frame of frames) {
      if (frame.event === 'pusher:error') assert.equal(typeof frame.data, 'object');
      else assert.ok(['string', 'undefined'].includes(typeof frame.data), JSON.stringify(frame));
    }
    const kinds = new Set(frames.map(({ event }) => event));
    assert.ok(kinds.size >= 9, [...kinds].join(' '));
  });
}

test('a closing handshake is answered with the code that was sent', async (t) => {
  const client = await connect(t);
  client.ws.close(1000, 'done');
  const { code } = await within(client.closed, 'the close frame');
  assert.equal(code, 1000);
  assert.equal(client.ws.readyState, WebSocket.CLOSED);
});
