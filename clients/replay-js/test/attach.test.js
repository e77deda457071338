// Instances of pusher-js with replay, against a server that says what the test has it say.
import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import { attachReplay, withReplay } from 'tidewire-replay';
import { address, follow, heard, start, tidy } from './lib/client.js';
import { inNode, newest } from './lib/releases.js';
import { startServer } from './lib/scripted-server.js';

const at = (serial) => ({ epoch: 'log.1', serial });
const SUCCEEDED = 'pusher:subscription_succeeded';

/** A client that has `channel`, with the log at 4. */
async function joined(t, channel, options) {
  const server = await startServer(t);
  const pusher = start(t, server, options);
  const events = follow(pusher, channel);
  const connection = await server.connection();
  await connection.accept(channel, at(4));
  assert.equal(await events.next(), SUCCEEDED);
  return { server, pusher, events, connection };
}

for (const release of inNode) {
  describe(release.name, () => {
    test('repairs a gap on a private channel with the signature it has', async (t) => {
      const { events, connection } = await joined(t, 'private-orders', { release });
      connection.messages('private-orders', 5);
      connection.messages('private-orders', 8, 9);
      const { auth, replay } = await connection.subscription('private-orders');
      assert.equal(auth, 'key:7.1');
      assert.deepEqual(replay, { v: 1, from: 'log.1:5', not_from: '7.1' });
      connection.messages('private-orders', 10);
      connection.resume('private-orders', { ...at(10), recovered: true, count: 5 });
      connection.messages('private-orders', 6, 10, { replayed: true });
      connection.done('private-orders', 10);
      connection.messages('private-orders', 11);
      assert.deepEqual(
        await events.take(8), [5, 6, 7, 8, 9, 10, ['tidewire:recovered', { count: 5 }], 11],
      );
      assert.equal(connection.frames.waiting, 0, 'asked once');
    });

    test('keeps members of a presence channel through a repair', async (t) => {
      const members = JSON.stringify({ presence: { count: 1, ids: ['u-1'], hash: { 'u-1': null } } });
      const server = await startServer(t);
      const pusher = start(t, server, { release });
      const channel = pusher.subscribe('presence-room');
      const counted = heard(channel);
      const connection = await server.connection();
      await connection.accept('presence-room', at(4), members);
      connection.messages('presence-room', 6);
      assert.equal((await connection.subscription('presence-room')).channel_data, '{"user_id":"u-1"}');
      connection.resume('presence-room', { ...at(6), recovered: true });
      connection.messages('presence-room', 5, 6);
      assert.deepEqual(await counted.take(3), [SUCCEEDED, 5, 6]);
      assert.equal(channel.members.count, 1);
    });

    test('tells of a reset, of messages that cannot be read and of a log that was trimmed', async (t) => {
      const { server, events, connection } = await joined(t, 'orders', { release });
      connection.send('pusher_internal:replay_reset', 'orders', { data: '{}', epoch: 'log.2', serial: 3, reason: 'rolled_back' });
      connection.send('pusher_internal:replay_skip', 'orders', { data: '{}', serial: 4 });
      connection.messages('orders', 5);
      assert.deepEqual(await events.take(3), [
        ['tidewire:resync', { reason: 'rolled_back' }], ['tidewire:resync', { reason: 'unreadable' }], 5,
      ]);
      connection.drop();
      const next = await server.connection();
      const asked = await next.accept('orders', { ...at(99), recovered: false, reason: 'expired', oldest: 90 });
      assert.equal(asked.from, 'log.2:5');
      next.messages('orders', 100);
      assert.deepEqual(await events.take(3), [SUCCEEDED, ['tidewire:resync', { reason: 'expired', oldest: 90 }], 100]);
    });

    test('changes nothing with a server that knows no replay', async (t) => {
      const server = await startServer(t);
      const pusher = start(t, server, { release });
      const events = follow(pusher, 'orders');
      for (let round = 1; round <= 2; round += 1) {
        const connection = await server.connection();
        assert.deepEqual(await connection.accept('orders'), { v: 1 });
        connection.send('counted', 'orders', { data: '{"n":1}' });
        connection.send('counted', 'orders', { data: '{"n":1,"serial":1}' });
        connection.message('orders', 3);
        connection.message('orders', 3);
        assert.deepEqual(await events.take(5), [SUCCEEDED, 1, 1, 3, 3]);
        assert.equal(pusher.channel('orders').position, undefined);
        connection.drop();
      }
    });

    test('a refusal because messages are gone leads to a live subscription', async (t) => {
      const { server, pusher, events, connection } = await joined(t, 'orders', { release, replay: { onGap: 'reject' } });
      connection.drop();
      const next = await server.connection();
      const { replay } = await next.subscription('orders');
      assert.deepEqual(replay, { v: 1, from: 'log.1:4', not_from: '7.1', on_gap: 'reject' });
      const refusal = { type: 'ReplayGone', error: 'gone', status: 410, reason: 'expired', oldest: 9 };
      next.refuse('orders', refusal);
      assert.deepEqual(await events.take(2), [
        ['pusher:subscription_error', refusal], ['tidewire:resync', { reason: 'expired', oldest: 9 }],
      ]);
      assert.equal(pusher.channel('orders').position, undefined);
      pusher.subscribe('orders');
      assert.deepEqual(await next.accept('orders', at(20)), { v: 1, on_gap: 'reject' });
      next.messages('orders', 21);
      assert.deepEqual(await events.take(2), [SUCCEEDED, 21]);
    });

    test('the channel of the signed-in user goes on where it was', async (t) => {
      const server = await startServer(t);
      const userAuthentication = { customHandler: (_, callback) => callback(null, { auth: 'key:x', user_data: '{"id":"7"}' }) };
      const pusher = start(t, server, { release, userAuthentication });
      const told = heard(Object.assign(pusher.user, { name: 'the user' }));
      pusher.signin();
      const signIn = async (connection, replay) => {
        assert.equal((await connection.frames.next()).event, 'pusher:signin');
        connection.send('pusher:signin_success', undefined, { data: JSON.stringify({ user_data: '{"id":"7"}' }) });
        return connection.accept('#server-to-user-7', replay);
      };
      let connection = await server.connection();
      assert.deepEqual(await signIn(connection, at(4)), { v: 1 });
      connection.messages('#server-to-user-7', 5);
      assert.equal(await told.next(), 5);
      assert.equal(pusher.user.serverToUserChannel.position, 'log.1:5');
      connection.drop();
      connection = await server.connection();
      const asked = await signIn(connection, { ...at(7), recovered: true, count: 2 });
      assert.deepEqual(asked, { v: 1, from: 'log.1:5', not_from: '7.1' });
      connection.messages('#server-to-user-7', 6, 7);
      connection.done('#server-to-user-7', 7);
      assert.deepEqual(await told.take(3), [6, 7, ['tidewire:recovered', { count: 2 }]]);
    });
  });
}

test('a subscription that could not be answered is tried again, with what it has', async (t) => {
  const { server, events, connection } = await joined(t, 'orders');
  connection.drop();
  const next = await server.connection();
  await next.subscription('orders');
  next.refuse('orders', { type: 'ReplayUnavailable', error: 'the log cannot be read', status: 503 });
  assert.equal((await events.next())[0], 'pusher:subscription_error');
  assert.equal((await next.accept('orders', { ...at(5), recovered: true, count: 1 })).from, 'log.1:4');
  next.messages('orders', 5);
  assert.deepEqual(await events.take(2), [SUCCEEDED, 5]);
});

test('a repair that could not be answered is tried again', async (t) => {
  const { events, connection } = await joined(t, 'orders');
  connection.messages('orders', 6);
  await connection.subscription('orders');
  connection.refuse('orders', { type: 'ReplayUnavailable', error: 'the log cannot be read', status: 503 });
  assert.equal((await events.next())[0], 'pusher:subscription_error');
  assert.equal((await connection.subscription('orders')).replay.from, 'log.1:4');
  connection.resume('orders', { ...at(6), recovered: true });
  connection.messages('orders', 5, 6);
  assert.deepEqual(await events.take(2), [5, 6]);
});

test('a position is dropped when the application unsubscribes', async (t) => {
  const { server, pusher, connection } = await joined(t, 'orders');
  pusher.unsubscribe('orders');
  assert.equal((await connection.frames.next()).event, 'pusher:unsubscribe');
  let events = follow(pusher, 'orders');
  assert.equal(pusher.channel('orders').position, undefined);
  connection.messages('orders', 5);
  assert.deepEqual(await connection.accept('orders', at(8)), { v: 1 });
  connection.messages('orders', 9);
  assert.deepEqual(await events.take(3), [5, SUCCEEDED, 9], 'what was on its way counts for nothing');

  pusher.disconnect();
  pusher.unsubscribe('orders');
  events = follow(pusher, 'orders');
  pusher.connect();
  const next = await server.connection();
  assert.deepEqual(await next.accept('orders', at(20)), { v: 1 });
  await events.next();

  pusher.subscribe('late');
  pusher.unsubscribe('late');
  await next.accept('late', at(3));
  assert.equal((await next.frames.next()).event, 'pusher:unsubscribe');
  pusher.subscribe('late');
  assert.deepEqual(await next.accept('late', at(3)), { v: 1 });
});

test('a callback that unsubscribes leaves nothing behind', async (t) => {
  const storage = new Map();
  const { pusher, connection } = await joined(t, 'orders', { replay: { storage: storageOf(storage) } });
  pusher.channel('orders').bind('counted', () => pusher.unsubscribe('orders'));
  connection.messages('orders', 5, 6);
  assert.equal((await connection.frames.next()).event, 'pusher:unsubscribe');
  assert.equal(storage.size, 0);
});

test('a message whose callback threw is not had again', async (t) => {
  const { pusher, events, connection } = await joined(t, 'orders');
  const { transport } = pusher.connection.connection;
  pusher.channel('orders').bind('counted', ({ n }) => { if (n === 5) throw new Error('of the application'); });
  const frame = { event: 'counted', channel: 'orders', data: '{"n":5}', serial: 5 };
  assert.throws(() => transport.emit('message', { data: JSON.stringify(frame) }), /of the application/);
  assert.equal(pusher.channel('orders').position, 'log.1:5');
  connection.messages('orders', 5, 6);
  assert.deepEqual(await events.take(2), [5, 6]);
});

test('text that is no frame is left to pusher-js', async (t) => {
  const { pusher, events, connection } = await joined(t, 'orders');
  for (const text of ['{"serial":', '"serial":1', 'null', '[{"serial":1}]', '{"serial":1}']) {
    const { transport } = pusher.connection.connection;
    try { transport.emit('message', { data: text }); } catch (error) { assert.match(error.stack.split('\n')[1], /pusher-js/); }
  }
  connection.messages('orders', 5);
  assert.equal(await events.next(), 5);
});

function storageOf(map) {
  return {
    getItem: (key) => map.get(key) ?? null,
    setItem: (key, value) => map.set(key, value),
    removeItem: (key) => map.delete(key),
  };
}

describe('a storage', () => {
  const KEY = 'tidewire-replay:key:orders';

  test('keeps positions over a reload, saved after the callbacks', async (t) => {
    const stored = new Map();
    const replay = { storage: storageOf(stored) };
    const { server, pusher, events, connection } = await joined(t, 'orders', { replay });
    assert.equal(stored.get(KEY), 'log.1:4');
    let meanwhile;
    pusher.channel('orders').bind('counted', () => { meanwhile = stored.get(KEY); });
    connection.messages('orders', 5);
    await events.next();
    assert.deepEqual([meanwhile, stored.get(KEY)], ['log.1:4', 'log.1:5']);
    pusher.disconnect();

    const reloaded = start(t, server, { replay });
    const again = follow(reloaded, 'orders');
    const next = await server.connection();
    assert.deepEqual(await next.accept('orders', { ...at(5), recovered: true }), { v: 1, from: 'log.1:5' });
    await again.next();
    reloaded.unsubscribe('orders');
    assert.equal(stored.size, 0);
  });

  test('that is full or forbidden does no harm', async (t) => {
    const fail = () => { throw new Error('QuotaExceededError'); };
    const storage = { getItem: fail, setItem: fail, removeItem: fail };
    const { events, pusher, connection } = await joined(t, 'orders', { replay: { storage } });
    connection.messages('orders', 5);
    assert.equal(await events.next(), 5);
    pusher.unsubscribe('orders');
  });

  test('with garbage in it is passed over', async (t) => {
    const storage = storageOf(new Map([[KEY, 'log.1:']]));
    await joined(t, 'orders', { replay: { storage } });
  });
});

describe('options', () => {
  async function asked(t, replay, names) {
    const server = await startServer(t);
    const pusher = start(t, server, { replay });
    for (const name of names) pusher.subscribe(name);
    const connection = await server.connection();
    const answers = {};
    for (const name of names) answers[name] = (await connection.subscription(name)).replay;
    return answers;
  }

  test('by name', async (t) => {
    const channels = { news: { rewind: { count: 3 } }, chat: false, state: { from: 'log.1:7', onGap: 'continue' } };
    assert.deepEqual(
      await asked(t, { rewind: 'earliest', onGap: 'reject', channels }, ['news', 'chat', 'state', 'other']),
      {
        news: { v: 1, rewind: { count: 3 }, on_gap: 'reject' },
        chat: undefined,
        state: { v: 1, from: 'log.1:7' },
        other: { v: 1, rewind: 'earliest', on_gap: 'reject' },
      },
    );
  });

  test('by a function', async (t) => {
    const channels = (name) => name.startsWith('news') && { rewind: { seconds: 60 } };
    assert.deepEqual(
      await asked(t, { channels }, ['news-7', 'chat']),
      { 'news-7': { v: 1, rewind: { seconds: 60 } }, chat: undefined },
    );
    assert.deepEqual(await asked(t, { channels: () => null }, ['chat']), { chat: { v: 1 } });
  });

  test('that make no sense are told to whoever subscribes', async (t) => {
    const pusher = start(t, await startServer(t), { replay: { channels: { orders: { from: 'yesterday' } } } });
    assert.throws(() => pusher.subscribe('orders'), /not a position: yesterday/);
  });
});

describe('attaching', () => {
  test('to an instance, once', async (t) => {
    const server = await startServer(t);
    const Pusher = newest.load();
    const pusher = tidy(t, new Pusher('key', address(server)));
    assert.equal(attachReplay(pusher), pusher);
    assert.equal(attachReplay(pusher, { rewind: 'earliest' }), pusher);
    const events = follow(pusher, 'orders');
    const connection = await server.connection();
    assert.deepEqual(await connection.accept('orders', at(4)), { v: 1 });
    connection.messages('orders', 5);
    assert.deepEqual(await events.take(2), [SUCCEEDED, 5]);
    assert.equal(pusher.channel('orders').position, 'log.1:5');
  });

  test('to one that is connected: new channels at once, old ones with the next connection', async (t) => {
    const server = await startServer(t);
    const Pusher = newest.load();
    const pusher = tidy(t, new Pusher('key', address(server)));
    const old = follow(pusher, 'old');
    let connection = await server.connection();
    assert.equal(await connection.accept('old'), undefined);
    await old.next();
    attachReplay(pusher);
    const fresh = follow(pusher, 'new');
    assert.deepEqual(await connection.accept('new', at(4)), { v: 1 });
    connection.messages('new', 5);
    assert.deepEqual(await fresh.take(2), [SUCCEEDED, 5]);
    connection.drop();
    connection = await server.connection();
    assert.deepEqual(await connection.accept('old', at(1)), { v: 1 });
    assert.equal((await connection.accept('new', at(5))).from, 'log.1:5');
    await fresh.next();
    assert.equal(pusher.channel('old').position, 'log.1:1');
  });

  test('a class leaves the given one as it is', async (t) => {
    const server = await startServer(t);
    const Pusher = newest.load();
    const WithReplay = withReplay(Pusher);
    WithReplay.logToConsole = false;
    assert.equal(Pusher.logToConsole, false, 'what is set on it reaches the class');
    class Mine extends WithReplay {}
    const mine = tidy(t, new Mine('key', address(server)));
    const stock = tidy(t, new Pusher('key', address(server)));
    assert.ok(mine instanceof Mine && mine instanceof Pusher && mine instanceof WithReplay);
    assert.ok(stock instanceof WithReplay, 'to those who ask it is the same class');
    for (const pusher of [mine, stock]) pusher.subscribe(pusher === mine ? 'mine' : 'stock');
    const replays = {};
    for (let count = 0; count < 2; count += 1) {
      const { data } = await (await server.connection()).frames.next();
      replays[data.channel] = data.replay;
    }
    assert.deepEqual(replays, { mine: { v: 1 }, stock: undefined });
  });

  test('to something else is refused', () => {
    assert.throws(() => attachReplay({}), /there is no send_event\(\)/);
    assert.throws(() => withReplay({ default: newest.load() }), /takes the class of pusher-js/);
  });

  test('to a pusher-js that hides its transport does no harm, and is told', (t) => {
    const warn = mock.method(console, 'warn', () => {});
    t.after(() => warn.mock.restore());
    const nothing = () => {};
    const connection = { state: 'connected', bind: nothing, connection: { transport: {} } };
    const names = { send_event: nothing, subscribe: nothing, unsubscribe: nothing, channel: nothing, allChannels: () => [] };
    attachReplay({ ...names, connection });
    attachReplay({ ...names, connection: { ...connection, connection: null } });
    for (const { arguments: [text] } of warn.mock.calls) assert.match(text, /no connection\.connection\.transport\.emit\(\)/);
    assert.equal(warn.mock.callCount(), 2);
  });
});
