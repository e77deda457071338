// The calls of the HTTP API (specification 9.10).
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { connect, connectMany } from '../lib/raw.js';
import { api, plainQuery, publish, send, signedQuery } from '../lib/rest.js';
import { app, namedApp, skipWithout } from '../lib/target.js';
import { eventually, unique } from '../lib/wait.js';

const trigger = (body, more) => api('POST', '/events', { body, ...more });
const batch = (events) => api('POST', '/batch_events', { body: { batch: events } });

/** A connection on a fresh channel, to see what is and what is not delivered. */
async function listener(t, prefix = 'news') {
  const client = await connect(t);
  const name = unique(prefix);
  await client.join(name, prefix.startsWith('presence') ? { user_id: 'u-1' } : undefined);
  return { client, name };
}

describe('POST /events', () => {
  test('S151 S152 S221 an event may name channels, or one channel', async (t) => {
    const { client, name } = await listener(t);
    for (const where of [{ channels: [name] }, { channel: name }]) {
      const reply = await trigger({ name: 'e', data: 'x', ...where });
      assert.deepEqual([reply.status, reply.json], [200, {}]);
      assert.equal((await client.next()).event, 'e');
    }
  });

  test('S153 data may have 10 240 bytes, not 10 241', async (t) => {
    const { client, name } = await listener(t);
    for (const data of ['x'.repeat(10_240), '日'.repeat(3413) + 'x', '"'.repeat(10_240)]) {
      assert.equal((await trigger({ name: 'e', data, channels: [name] })).status, 200);
      assert.equal((await client.next()).data, data);
      const reply = await trigger({ name: 'e', data: `${data}x`, channels: [name] });
      assert.equal(reply.status, 413);
      assert.match(reply.text, /10240/);
    }
    await client.quiet();
  });

  test('S154 data may be empty', async (t) => {
    const { client, name } = await listener(t);
    assert.equal((await trigger({ name: 'e', data: '', channels: [name] })).status, 200);
    assert.deepEqual(await client.next(), { event: 'e', channel: name, data: '' });
  });

  test('S156 data that is no string is delivered as its JSON text', async (t) => {
    const { client, name } = await listener(t);
    for (const [body, text] of [['{"a":1}', '{"a":1}'], ['[1,2]', '[1,2]'], ['7', '7'], ['true', 'true']]) {
      const reply = await trigger(`{"name":"e","channels":["${name}"],"data":${body}}`);
      assert.equal(reply.status, 200);
      assert.equal((await client.next()).data, text);
    }
  });

  test('S155 S157 S159 S160 S161 S164 S166 what is malformed is refused with 400, and nothing is delivered', async (t) => {
    const { client, name } = await listener(t);
    const good = { name: 'e', data: 'x', channels: [name] };
    const bad = [
      { ...good, data: undefined }, { ...good, name: undefined }, { ...good, name: '' }, { ...good, name: 5 },
      { ...good, name: 'x'.repeat(201) }, { ...good, name: 'pusher:x' }, { ...good, name: 'pusher_internal:x' },
      { ...good, channels: undefined }, { ...good, channels: [] }, { ...good, channels: [5] }, { ...good, channels: {} },
      { ...good, channels: [name, 'a b'] }, { ...good, channels: [name, ''] }, { ...good, channels: [name, '#x'] },
      { ...good, channels: [name, 'x'.repeat(201)] },
      { ...good, channels: [name, ...Array.from({ length: 100 }, (_, n) => `c-${n}`)] },
      { ...good, socket_id: 'abc' }, { ...good, socket_id: '1' }, { ...good, socket_id: '' }, { ...good, socket_id: 5 },
      { ...good, info: 'nonsense' }, { ...good, info: 'user_count,nonsense' },
      'not json', '[]', '"x"', '5', 'null', '{', `${JSON.stringify(good)}x`,
    ];
    for (const body of bad) {
      const reply = await trigger(body);
      assert.equal(reply.status, 400, `${JSON.stringify(body).slice(0, 200)}: ${reply.status} ${reply.text}`);
    }
    await client.quiet();
  });

  test('S157 S220 an event may go to a hundred channels', async (t) => {
    const { client, name } = await listener(t);
    const channels = [name, ...Array.from({ length: 99 }, (_, n) => `c-${n}`)];
    assert.equal((await trigger({ name: 'e', data: 'x', channels })).status, 200);
    assert.equal((await client.next()).channel, name);
  });

  test('S158 a channel named twice gets the event once', async (t) => {
    const { client, name } = await listener(t);
    assert.equal((await trigger({ name: 'e', data: 'x', channels: [name, name] })).status, 200);
    assert.equal((await client.next()).event, 'e');
    await client.quiet();
  });

  test('S160 a null socket_id or info is an absent one', async (t) => {
    const { client, name } = await listener(t);
    const reply = await trigger({ name: 'e', data: 'x', channels: [name], socket_id: null, info: null });
    assert.deepEqual([reply.status, reply.json], [200, {}]);
    assert.equal((await client.next()).event, 'e');
  });

  test('S163 info tells the users of presence channels', async (t) => {
    const { client, name } = await listener(t, 'presence-a');
    const again = await connect(t);
    await again.join(name, { user_id: 'u-1' });
    const idle = unique('presence-idle');
    const reply = await trigger({ name: 'e', data: 'x', channels: [name, idle], info: 'user_count' });
    assert.equal(reply.status, 200);
    assert.deepEqual(reply.json.channels[name], { user_count: 1 });
    assert.ok(idle in reply.json.channels);
    assert.equal((await client.next()).event, 'e');
  });

  for (const type of ['application/json; charset=utf-8', 'text/plain', '']) {
    test(`S165 the content type ${JSON.stringify(type)} is accepted`, async () => {
      const reply = await trigger({ name: 'e', data: 'x', channels: ['news'] }, { headers: { 'content-type': type } });
      assert.equal(reply.status, 200);
    });
  }

  test('S165 unknown members of the body are ignored', async () => {
    const reply = await trigger({ name: 'e', data: 'x', channels: ['news'], time_ms: 1, nested: { a: [] } });
    assert.equal(reply.status, 200);
  });

  test('S186 publishing faster than the app may is answered 429 with Retry-After', { skip: skipWithout('throttled') }, async () => {
    const throttled = namedApp('throttled');
    const body = { name: 'e', data: 'x', channels: ['news'] };
    const replies = await Promise.all(Array.from({ length: 30 }, () => trigger(body, { app: throttled })));
    const limited = replies.filter(({ status }) => status === 429);
    assert.ok(limited.length > 0 && limited.length < 30);
    for (const reply of limited) assert.ok(Number(reply.headers['retry-after']) >= 0);
    await eventually(async () => (await trigger(body, { app: throttled })).status === 200, 'publishing to be allowed again');
  });
});

describe('POST /batch_events', () => {
  const events = (name, count) => Array.from({ length: count }, (_, n) => ({ name: `e-${n}`, channel: name, data: 'x' }));

  test('S167 ten events are delivered in order, eleven not at all', async (t) => {
    const { client, name } = await listener(t);
    const reply = await batch(events(name, 10));
    assert.deepEqual([reply.status, reply.json], [200, {}]);
    for (let n = 0; n < 10; n += 1) assert.equal((await client.next()).event, `e-${n}`);
    assert.equal((await batch(events(name, 11))).status, 400);
    assert.equal((await batch([])).status, 400);
    await client.quiet();
  });

  test('S168 with info in one event there is an answer for each', async (t) => {
    const { name } = await listener(t, 'presence-a');
    const [one, two, three] = events(name, 3);
    const reply = await batch([one, { ...two, info: 'user_count' }, three]);
    assert.deepEqual(reply.json, { batch: [{}, { user_count: 1 }, {}] });
  });

  test('S169 one bad event spoils the batch', async (t) => {
    const { client, name } = await listener(t);
    for (const [bad, status] of [
      [{ channel: 'a b' }, 400], [{ name: 'pusher:x' }, 400], [{ socket_id: 'x' }, 400], [{ data: undefined }, 400],
      [{ data: 'x'.repeat(10_241) }, 413],
    ]) {
      const [one, two] = events(name, 2);
      assert.equal((await batch([one, { ...two, ...bad }])).status, status, JSON.stringify(bad).slice(0, 80));
    }
    await client.quiet();
  });

  test('S132 an event of a batch may leave out a connection', async (t) => {
    const { client, name } = await listener(t);
    const [one, two] = events(name, 2);
    await batch([{ ...one, socket_id: client.socketId }, two]);
    assert.equal((await client.next()).event, 'e-1');
  });
});

describe('GET', () => {
  const read = (path, params) => api('GET', path, { params });

  test('S170 no channels are an empty object', async () => {
    const reply = await read('/channels', { filter_by_prefix: unique('nothing') });
    assert.deepEqual([reply.status, reply.json], [200, { channels: {} }]);
  });

  test('S171 S174 occupied channels are listed by prefix, with user counts on request', async (t) => {
    const prefix = unique('presence-list');
    const clients = await connectMany(t, 3);
    await clients[0].join(`${prefix}-a`, { user_id: 'u-1' });
    await clients[1].join(`${prefix}-a`, { user_id: 'u-1' });
    await clients[2].join(`${prefix}-b`, { user_id: 'u-2' });
    const list = async (params) => (await read('/channels', { filter_by_prefix: prefix, ...params })).json.channels;
    assert.deepEqual(await list(), { [`${prefix}-a`]: {}, [`${prefix}-b`]: {} });
    assert.deepEqual(await list({ info: 'user_count' }), {
      [`${prefix}-a`]: { user_count: 1 }, [`${prefix}-b`]: { user_count: 1 },
    });
    clients[2].leave(`${prefix}-b`);
    await clients[2].quiet();
    assert.deepEqual(await list(), { [`${prefix}-a`]: {} });
  });

  test('S172 user counts of all channels are refused', async () => {
    assert.equal((await read('/channels', { info: 'user_count' })).status, 400);
    assert.equal((await read('/channels', { info: 'user_count', filter_by_prefix: 'private-' })).status, 400);
  });

  test('S173 an unknown attribute is refused', async () => {
    for (const path of ['/channels', '/channels/news']) {
      const reply = await read(path, { info: 'nonsense' });
      assert.equal(reply.status, 400);
      assert.match(reply.text, /info should be a comma separated list of attributes/);
    }
  });

  test('S175 a channel nobody ever saw is not occupied', async () => {
    const reply = await read(`/channels/${unique('never')}`);
    assert.deepEqual([reply.status, reply.json], [200, { occupied: false }]);
  });

  test('S176 only presence channels have users to count', async () => {
    const reply = await read('/channels/news', { info: 'user_count' });
    assert.equal(reply.status, 400);
    assert.match(reply.text, /presence channel/);
  });

  test('S177 the cached event and its remaining time are told', async () => {
    const name = unique('cache-x');
    const cached = async () => (await read(`/channels/${name}`, { info: 'cache' })).json;
    assert.deepEqual(await cached(), { occupied: false, cache: null });
    await publish(name, 'e', '{"v":1}');
    const { cache } = await cached();
    assert.equal(cache.data, '{"v":1}');
    assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1700 && cache.ttl <= 1800, String(cache.ttl));
  });

  test('S163 S113 subscriptions are counted where the app counts them', { skip: skipWithout('counted') }, async (t) => {
    const counted = namedApp('counted');
    const [one, two] = await connectMany(t, 2, { app: counted });
    const name = unique('news');
    for (const client of [one, two]) await client.join(name);
    const reply = await api('GET', `/channels/${name}`, { params: { info: 'subscription_count' }, app: counted });
    assert.deepEqual(reply.json, { occupied: true, subscription_count: 2 });
  });

  test('S178 S179 S180 the users of a presence channel are distinct strings, of any other channel an error', async (t) => {
    const name = unique('presence-a');
    const clients = await connectMany(t, 3);
    for (const [n, id] of [7, '7', 'u-1'].entries()) await clients[n].join(name, { user_id: id });
    const users = await read(`/channels/${name}/users`);
    assert.deepEqual(users.json.users.map(({ id }) => id).sort(), ['7', 'u-1']);
    assert.deepEqual(Object.keys(users.json.users[0]), ['id']);
    const empty = await read(`/channels/${unique('presence-empty')}/users`);
    assert.deepEqual([empty.status, empty.json], [200, { users: [] }]);
    assert.equal((await read('/channels/news/users')).status, 400);
  });
});

test('S183 termination without an app id finds the app by its key (Python)', async (t) => {
  const client = await connect(t);
  const user = unique('user');
  await client.signIn({ id: user });
  const path = `/users/${user}/terminate_connections`;
  const query = plainQuery(signedQuery({ method: 'POST', path, body: '{}' }));
  const reply = await send({ method: 'POST', target: `${path}?${query}`, body: '{}' });
  assert.deepEqual([reply.status, reply.json], [200, {}]);
  assert.equal((await client.closing()).code, 4009);
});

test('S184 the publish call of 2012 still works', async (t) => {
  const { client, name } = await listener(t);
  const other = await connect(t);
  await other.join(name);
  const path = `/channels/${name}/events`;
  const reply = await api('POST', path, { body: '{"raw": 1}', params: { name: 'e' } });
  assert.deepEqual([reply.status, reply.text], [202, '']);
  for (const each of [client, other]) assert.deepEqual(await each.next(), { event: 'e', channel: name, data: '{"raw": 1}' });
  await api('POST', path, { body: 'x', params: { name: 'e', socket_id: client.socketId } });
  assert.equal((await other.next()).data, 'x');
  await client.quiet();
});

test('S185 unknown paths are 404, known ones with another method 405', async () => {
  for (const path of ['/nope', '/channels/a/b/c', '/']) assert.equal((await api('GET', path)).status, 404, path);
  assert.equal((await api('GET', '/events')).status, 405);
  assert.equal((await api('GET', '/batch_events')).status, 405);
  assert.equal((await api('POST', '/channels', { body: '{}' })).status, 405);
  const outside = await send({ method: 'GET', target: '/nope' });
  assert.equal(outside.status, 404);
});

describe('what Laravel sends through the PHP SDK', () => {
  /** pusher-http-php: escaped query, `channel` for one channel and `channels` for more, data JSON-encoded once more. */
  function laravel(channels, name, payload, socketId) {
    const where = channels.length === 1 ? { channel: channels[0] } : { channels };
    const body = JSON.stringify({ name, data: JSON.stringify(payload), ...where, ...(socketId ? { socket_id: socketId } : {}) });
    const path = `/apps/${app.id}/events`;
    const query = signedQuery({ method: 'POST', path, body });
    const wire = Object.entries(query).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join('&');
    return send({
      method: 'POST', target: `${path}?${wire}`, body,
      headers: { 'content-type': 'application/json', 'x-pusher-library': 'pusher-http-php 7.2.6' },
    });
  }

  test('S220 a broadcast to 250 channels is three posts, all delivered', async (t) => {
    const client = await connect(t);
    const prefix = unique('wide');
    const names = Array.from({ length: 250 }, (_, n) => `${prefix}-${n}`);
    for (const name of names) client.subscribe({ channel: name });
    for (let n = 0; n < 250; n += 1) await client.until('pusher_internal:subscription_succeeded');
    for (let at = 0; at < 250; at += 100) {
      const reply = await laravel(names.slice(at, at + 100), 'App\\Events\\OrderPaid', { id: 1 });
      assert.deepEqual([reply.status, reply.json], [200, {}]);
    }
    const reached = new Set();
    for (let n = 0; n < 250; n += 1) reached.add((await client.next()).channel);
    assert.equal(reached.size, 250);
  });

  test('S221 S222 a broadcast to others uses channel and leaves out the sender', async (t) => {
    const [sender, other] = await connectMany(t, 2);
    const name = unique('private-orders');
    for (const client of [sender, other]) await client.join(name);
    assert.equal((await laravel([name], 'App\\Events\\OrderPaid', { id: 1 }, sender.socketId)).status, 200);
    assert.deepEqual(await other.next(), { event: 'App\\Events\\OrderPaid', channel: name, data: '{"id":1}' });
    await sender.quiet();
  });
});
