// Subscribing and unsubscribing, frame by frame (specification 9.3).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, connectMany } from '../lib/raw.js';
import { api, publish } from '../lib/rest.js';
import { app, App } from '../lib/target.js';
import { eventually, unique } from '../lib/wait.js';

const success = (channel) => ({ event: 'pusher_internal:subscription_succeeded', channel, data: '{}' });

test('S043 a subscription is acknowledged with exactly the string {}', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  client.subscribe({ channel: name });
  assert.deepEqual(await client.next(), success(name));
  await client.quiet();
});

test('S044 a public channel ignores auth and channel_data', async (t) => {
  const client = await connect(t);
  for (const more of [{ auth: '' }, { auth: 'bogus', channel_data: 'not json' }, { auth: null, channel_data: null }]) {
    const name = unique('news');
    client.subscribe({ channel: name, ...more });
    assert.deepEqual(await client.next(), success(name));
  }
});

test('S045 the data of a subscription may be a string of JSON', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  client.subscribe(JSON.stringify({ channel: name }));
  assert.deepEqual(await client.next(), success(name));
});

for (const data of [{}, { channel: 5 }, { channel: null }, { channel: {} }, undefined, null, 'x', '"x"', [], 7]) {
  test(`S046 a subscription with data ${JSON.stringify(data)} is refused`, async (t) => {
    const client = await connect(t);
    client.subscribe(data);
    await client.refused();
    await client.quiet();
  });
}

test('S047 a second subscription to a channel is refused, and events still arrive once', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  await client.join(name);
  client.subscribe({ channel: name });
  await client.refused(null, new RegExp(`^Existing subscription to channel ${name}`));
  await publish(name, 'once', {});
  assert.equal((await client.next()).event, 'once');
  await client.quiet();
});

test('S047 S048 many subscriptions in one breath keep exactly one', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  for (let n = 0; n < 5; n += 1) client.subscribe({ channel: name });
  assert.deepEqual(await client.next(), success(name));
  for (let n = 0; n < 4; n += 1) await client.refused(null, /Existing subscription/);
  client.leave(name);
  await client.quiet();
  assert.deepEqual((await api('GET', `/channels/${name}`)).json, { occupied: false });
});

test('S048 an unsubscription is silent, and nothing of the channel follows it', async (t) => {
  const client = await connect(t);
  const [left, kept] = [unique('left'), unique('kept')];
  await client.join(left);
  await client.join(kept);
  client.leave(left);
  await client.quiet();
  await publish(left, 'missed', {});
  await publish(kept, 'marker', {});
  assert.equal((await client.next()).event, 'marker');
});

test('S049 an unsubscription from a channel not held is refused', async (t) => {
  const client = await connect(t);
  client.leave(unique('never'));
  await client.refused(null, /^No current subscription to channel/);
  await client.quiet();
});

test('S050 a channel can be joined again', async (t) => {
  const client = await connect(t);
  const name = unique('again');
  for (let n = 0; n < 3; n += 1) {
    await client.join(name);
    client.leave(name);
  }
  await client.join(name);
  await publish(name, 'event', {});
  assert.equal((await client.next()).event, 'event');
  await client.quiet();
});

test('S051 S174 a connection that ends gives up all its subscriptions', async (t) => {
  const client = await connect(t);
  const names = [unique('a'), unique('private-b'), unique('presence-c')];
  await client.join(names[0]);
  await client.join(names[1]);
  await client.join(names[2], { user_id: 'u-1' });
  for (const name of names) assert.equal((await api('GET', `/channels/${name}`)).json.occupied, true);
  await client.end();
  for (const name of names) {
    await eventually(async () => !(await api('GET', `/channels/${name}`)).json.occupied, `${name} to be vacant`);
  }
});

for (const name of ['a b', 'ä', 'a/b', 'a:b', '', 'a\n', 'a"b', 'a\u0000']) {
  test(`S052 the channel name ${JSON.stringify(name)} is refused`, async (t) => {
    const client = await connect(t);
    client.subscribe({ channel: name });
    await client.refused();
    client.leave(name);
    await client.refused();
    await client.quiet();
  });
}

test('S053 a channel name may use the whole alphabet', async (t) => {
  const client = await connect(t);
  await client.join(unique('A-z_0=9@x,y.z;q'));
});

test('S054 a channel name may have 200 characters, not 201', async (t) => {
  const client = await connect(t);
  const name = unique('long').padEnd(200, 'x');
  await client.join(name);
  client.subscribe({ channel: `${name}x` });
  await client.refused();
});

for (const name of ['#x', '#server-to-user-', '#server-to-user-u-1', '#server-to-client-x']) {
  test(`S055 the reserved channel ${name} is refused`, async (t) => {
    const client = await connect(t);
    client.subscribe({ channel: name });
    await client.refused();
    await client.quiet();
  });
}

test('S056 prefixes are case-sensitive: Private- and PRIVATE- are public', async (t) => {
  const client = await connect(t);
  for (const prefix of ['Private', 'PRIVATE', 'Presence', 'privatex', 'private_a']) {
    const name = unique(prefix);
    client.subscribe({ channel: name });
    assert.deepEqual(await client.next(), success(name));
  }
});

test('S057 a private channel is joined with a valid signature', async (t) => {
  const client = await connect(t);
  const name = unique('private-a');
  assert.deepEqual(await client.join(name), success(name));
});

test('S058 S112 S084 a channel that needs a signature is refused without one', async (t) => {
  const client = await connect(t);
  for (const prefix of ['private', 'private-encrypted', 'presence', 'private-cache', 'presence-cache']) {
    for (const auth of [undefined, '', null]) {
      client.subscribe({ channel: unique(prefix), auth });
      await client.refused(null, /^Auth info required to subscribe to/);
    }
  }
  await client.quiet();
});

test('S059 a signature without its key is refused', async (t) => {
  const client = await connect(t);
  for (const auth of ['nocolon', app.channelAuth(client.socketId, 'private-a').split(':')[1]]) {
    client.subscribe({ channel: 'private-a', auth });
    await client.refused(null, /should be of format 'key:signature'/);
  }
});

test('S060 a signature under the key of somebody else is refused', async (t) => {
  const client = await connect(t);
  const [, hex] = app.channelAuth(client.socketId, 'private-a').split(':');
  for (const key of ['otherkey', '', app.key.toUpperCase()]) {
    client.subscribe({ channel: 'private-a', auth: `${key}:${hex}` });
    await client.refused(null, /^Invalid key in subscription auth data/);
  }
});

test('S061 S063 S064 a signature for something else is refused, and a valid one is still taken afterwards', async (t) => {
  const [client, other] = await connectMany(t, 2);
  const name = unique('private-a');
  const wrong = [
    app.channelAuth(client.socketId, `${name}x`),
    app.channelAuth(other.socketId, name),
    new App(app.id, app.key, 'other-secret').channelAuth(client.socketId, name),
    `${app.key}:`, `${app.key}:00`, `${app.key}:zz`, `${app.channelAuth(client.socketId, name)}00`,
    app.userAuth(client.socketId, name),
  ];
  for (const auth of wrong) {
    client.subscribe({ channel: name, auth });
    await client.refused(null, /^Invalid signature: Expected HMAC SHA256 hex digest of/);
  }
  await publish(name, 'missed', {});
  await client.join(name);
  await client.quiet();
});

test('S062 upper-case hex is accepted', async (t) => {
  const client = await connect(t);
  const name = unique('private-a');
  const [key, hex] = app.channelAuth(client.socketId, name).split(':');
  client.subscribe({ channel: name, auth: `${key}:${hex.toUpperCase()}` });
  assert.deepEqual(await client.next(), success(name));
});

test('S065 channel_data is part of what is signed on private channels too, unless it is null', async (t) => {
  const client = await connect(t);
  const [one, two] = [unique('private-a'), unique('private-b')];
  assert.deepEqual(await client.join(one, '{"any":"thing"}'), success(one));
  client.subscribe({ channel: two, auth: app.channelAuth(client.socketId, two), channel_data: '{"any":"thing"}' });
  await client.refused(null, /^Invalid signature/);
  client.subscribe({ channel: two, auth: app.channelAuth(client.socketId, two), channel_data: null });
  assert.deepEqual(await client.next(), success(two));
});

test('S066 a subscription is acknowledged before any event of its channel', async (t) => {
  const name = unique('private-race');
  let isRunning = true;
  t.after(() => { isRunning = false; });
  const publisher = (async () => { while (isRunning) await publish(name, 'tick', ''); })();
  for (let n = 0; n < 20; n += 1) {
    const client = await connect(t);
    await client.join(name);
    assert.equal((await client.next()).event, 'tick');
    client.ws.terminate();
  }
  isRunning = false;
  await publisher;
});

test('S067 a js client is told of a refusal twice: the error, then the event its channel understands', async (t) => {
  const client = await connect(t, { query: 'protocol=7&client=js&version=8.6.0&flash=false' });
  const name = unique('private-a');
  client.subscribe({ channel: name, auth: `${app.key}:00` });
  await client.refused(null, /^Invalid signature/);
  const { event, channel, data } = await client.next();
  assert.deepEqual([event, channel, typeof data], ['pusher:subscription_error', name, 'string']);
  const { type, error, status } = JSON.parse(data);
  assert.deepEqual([type, typeof error, status], ['AuthError', 'string', 401]);
  await client.quiet();
});

test('S068 a Java client is told of a refusal with the error frame alone', async (t) => {
  const client = await connect(t, { query: 'client=java-client&protocol=5&version=2.4.4' });
  client.subscribe({ channel: unique('private-a'), auth: `${app.key}:00` });
  await client.refused();
  await client.quiet();
});

test('S219 unknown members of a subscription are ignored', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  client.subscribe({ channel: name, since: 7, nested: { a: [] }, filter: null });
  assert.deepEqual(await client.next(), success(name));
});
