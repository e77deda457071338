// Cache channels, encrypted channels and subscription counts, frame by frame (specification 9.6).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, connectMany } from '../lib/raw.js';
import { api, publish } from '../lib/rest.js';
import { namedApp, skipWithout } from '../lib/target.js';
import { eventually, unique } from '../lib/wait.js';

const miss = (channel) => ({ event: 'pusher:cache_miss', channel, data: '{}' });
const count = (channel, n) => ({
  event: 'pusher_internal:subscription_count', channel, data: JSON.stringify({ subscription_count: n }),
});
const memberOf = (name) => (name.startsWith('presence') ? { user_id: 'u-1' } : undefined);

test('S102 a cache channel that has nothing says so after the success', async (t) => {
  const client = await connect(t);
  const name = unique('cache-a');
  await client.join(name);
  assert.deepEqual(await client.next(), miss(name));
  await client.quiet();
});

for (const prefix of ['cache', 'private-cache', 'presence-cache', 'private-encrypted-cache']) {
  const extra = prefix === 'cache' ? '' : ' S108';
  test(`S103 S104 S105 S107${extra} a newcomer on ${prefix}- gets the newest event, and only the newcomer`, async (t) => {
    const name = unique(`${prefix}-a`);
    await publish(name, 'first', { v: 1 });
    await publish(name, 'second', '{"v": 2 }');
    const [one, two, three] = await connectMany(t, 3);
    const cached = { event: 'second', channel: name, data: '{"v": 2 }' };
    for (const client of [one, two]) {
      await client.join(name, memberOf(name));
      assert.deepEqual(await client.next(), cached);
    }
    await one.quiet();
    for (const client of [one, two]) await client.end();
    await eventually(async () => !(await api('GET', `/channels/${name}`)).json.occupied, 'the channel to be vacant');
    await three.join(name, memberOf(name));
    assert.deepEqual(await three.next(), cached);
  });
}

test('S106 the cache forgets after its time', { skip: skipWithout('forgetful') }, async (t) => {
  const app = namedApp('forgetful');
  const name = unique('cache-a');
  await publish(name, 'event', 'x', { app });
  const cached = async () => (await api('GET', `/channels/${name}`, { params: { info: 'cache' }, app })).json.cache;
  assert.equal((await cached()).data, 'x');
  await eventually(async () => (await cached()) === null, 'the cached event to expire');
  const client = await connect(t, { app });
  await client.join(name);
  assert.deepEqual(await client.next(), miss(name));
});

test('S107 an event that leaves out one connection is cached for all', async (t) => {
  const [sender, late] = await connectMany(t, 2);
  const name = unique('cache-a');
  await sender.join(name);
  await sender.until('pusher:cache_miss');
  await publish(name, 'event', 'x', { socket_id: sender.socketId });
  await sender.quiet();
  await late.join(name);
  assert.deepEqual(await late.next(), { event: 'event', channel: name, data: 'x' });
  sender.leave(name);
  await sender.join(name);
  assert.equal((await sender.next()).data, 'x');
});

for (const prefix of ['cachex', 'private-cachex', 'presence-cachex', 'Cache', 'private-encrypted-cachex']) {
  test(`S109 ${prefix} is no cache channel`, async (t) => {
    const client = await connect(t);
    const name = unique(prefix);
    await publish(name, 'event', 'x');
    await client.join(name, memberOf(name));
    await client.quiet();
  });
}

test('S110 S111 an encrypted channel is acknowledged with {} and carries bytes it does not look at', async (t) => {
  const client = await connect(t);
  const name = unique('private-encrypted-a');
  assert.equal((await client.join(name)).data, '{}');
  const sealed = '{ "nonce":"AAAA",  "ciphertext" : "\\u0042/+==" }';
  await publish(name, 'sealed', sealed);
  assert.deepEqual(await client.next(), { event: 'sealed', channel: name, data: sealed });
});

for (const prefix of ['news', 'private', 'cache', 'private-encrypted']) {
  test(`S113 subscribers of ${prefix} learn how many they are`, { skip: skipWithout('counted') }, async (t) => {
    const [one, two] = await connectMany(t, 2, { app: namedApp('counted') });
    const name = unique(`${prefix}-a`);
    const afterCache = async (client) => {
      const frame = await client.next();
      return frame.event === 'pusher:cache_miss' ? client.next() : frame;
    };
    await one.join(name);
    assert.deepEqual(await afterCache(one), count(name, 1));
    await two.join(name);
    assert.deepEqual(await one.next(), count(name, 2));
    assert.deepEqual(await afterCache(two), count(name, 2));
    two.ws.terminate();
    assert.deepEqual(await one.next(), count(name, 1));
  });
}

test('S114 nobody is counted by default', async (t) => {
  const [one, two] = await connectMany(t, 2);
  const name = unique('news');
  for (const client of [one, two]) await client.join(name);
  for (const client of [one, two]) await client.quiet();
});

test('S114 presence channels are not counted', { skip: skipWithout('counted') }, async (t) => {
  const [one, two] = await connectMany(t, 2, { app: namedApp('counted') });
  const name = unique('presence-a');
  for (const client of [one, two]) await client.join(name, { user_id: 'u-1' });
  for (const client of [one, two]) await client.quiet();
});

test('S115 a large channel is counted at most every five seconds, and the last count is right', {
  skip: skipWithout('counted'),
}, async (t) => {
  const app = namedApp('counted');
  const name = unique('crowd');
  const observer = await connect(t, { app });
  await observer.join(name);
  const crowd = await connectMany(t, 155, { app });
  const started = Date.now();
  for (const client of crowd) client.subscribe({ channel: name });
  const frames = await observer.frames.until(({ data }) => data === count(name, 156).data, 'the final count', 30_000);
  const seconds = (Date.now() - started) / 1000;
  const large = frames.filter(({ data }) => JSON.parse(data).subscription_count > 101);
  assert.ok(large.length <= 1 + seconds / 5, `${large.length} counts in ${seconds} s`);
  for (const client of crowd.slice(0, 10)) client.leave(name);
  const [last] = await observer.frames.until(({ data }) => data === count(name, 146).data, 'the count after leaving', 30_000);
  assert.equal(last.event, 'pusher_internal:subscription_count');
});
