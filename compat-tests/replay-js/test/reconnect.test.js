// A lost connection: what was published meanwhile comes, once and in order, on every kind of channel.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { unique, within } from '../../node/lib/wait.js';
import { connected, heard, join, lost, numbers, releases, start, SUCCEEDED, take } from '../lib/client.js';
import { publish, sdkOf, startEndpoint } from '../lib/sdk.js';
import { plain, Shared, skip, startServer, stored } from '../lib/server.js';

let server;
let endpoint;

const KINDS = ['news', 'private-orders', 'presence-room', 'private-encrypted-vault', 'cache-state', 'private-cache-state'];

/** A client behind a door of its own that can be slammed. */
async function behindDoor(t, options) {
  const door = await server.door(t);
  const pusher = start(t, door, { endpoint, params: { user_id: unique('user') }, ...options });
  return { door, pusher };
}

/** Slams the door, does what is to be done while the client is away, and opens it again. */
async function away({ door, pusher }, act = () => {}) {
  const noticed = lost(pusher);
  door.slam();
  await noticed;
  await act();
  door.open();
}

const recovered = (count) => ['tidewire:recovered', { count }];

// Every reconnect takes pusher-js a second, in which the others can do theirs.
describe('a lost connection', { skip, concurrency: true }, () => {
  const shared = new Shared();
  before(async () => {
    server = await startServer(shared);
    endpoint = await startEndpoint(shared, server);
  });
  after(() => shared.end());

  for (const release of releases) {
    for (const kind of KINDS) {
      test(`pusher-js ${release.version} misses nothing on ${kind}`, async (t) => {
        const client = await behindDoor(t, { release });
        const name = unique(kind);
        const { events, channel } = await join(client.pusher, name);
        if (/cache-/.test(kind)) assert.equal((await events.next())[0], 'pusher:cache_miss');
        await publish(server, name, 1, 2);
        assert.deepEqual(await take(events, 2), [1, 2]);
        // pusher-js 7 gives a WebSocket up that died twice.
        const rounds = release.major < 8 ? 1 : 2;
        for (let round = 0; round < rounds; round += 1) {
          const first = 3 + round * 4;
          await away(client, () => publish(server, name, first, first + 2));
          const came = await take(events, 5);
          await publish(server, name, first + 3);
          assert.deepEqual(
            [...came, ...await take(events, 1)], [SUCCEEDED, first, first + 1, first + 2, recovered(3), first + 3],
          );
        }
        assert.match(channel.position, new RegExp(`^[0-9A-Za-z]+\\.\\d+:${2 + 4 * rounds}$`));
      });
    }

    test(`pusher-js ${release.version} misses nothing on the channel of its user`, async (t) => {
      const user = unique('user');
      const client = await behindDoor(t, { release, params: { user_id: user } });
      const events = heard(client.pusher.user, 'the user');
      // Nothing else tells that the user's channel is subscribed.
      const subscribed = new Promise((resolve) => {
        client.pusher.connection.bind('message', ({ event, channel }) => {
          if (event === 'pusher_internal:subscription_succeeded' && channel === `#server-to-user-${user}`) resolve();
        });
      });
      client.pusher.signin();
      await within(subscribed, 'the channel of the user');
      const tell = (n) => sdkOf(server).sendToUser(user, 'counted', { n });
      await tell(1);
      assert.deepEqual(await take(events, 1), [1]);
      await away(client, async () => {
        await tell(2);
        await tell(3);
      });
      assert.deepEqual(await take(events, 3), [2, 3, recovered(2)]);
    });
  }

  test('a member sees the members after it came back, and the others see it leave and join', async (t) => {
    const name = unique('presence-room');
    const client = await behindDoor(t, { params: { user_id: 'u-ada' } });
    const { channel, events } = await join(client.pusher, name);
    const other = start(t, server, { endpoint, params: { user_id: 'u-lin' } });
    const watching = await join(other, name);
    assert.equal((await events.next())[0], 'pusher:member_added');
    await away(client, async () => {
      assert.equal((await watching.events.next())[0], 'pusher:member_removed');
      await publish(server, name, 1);
    });
    assert.deepEqual(await take(events, 3), [SUCCEEDED, 1, recovered(1)]);
    assert.deepEqual(Object.keys(channel.members.members).sort(), ['u-ada', 'u-lin']);
    await watching.events.until((event) => event[0] === 'pusher:member_added', 'ada, back again');
  });

  test('nothing missed is told, too', async (t) => {
    const client = await behindDoor(t);
    const { events } = await join(client.pusher, unique('quiet'));
    await away(client);
    assert.deepEqual(await take(events, 2), [SUCCEEDED, recovered(0)]);
  });

  test('what excluded the sender is not replayed to it, but to the others', async (t) => {
    const name = unique('others');
    const clients = await Promise.all([behindDoor(t), behindDoor(t)]);
    const [mine, theirs] = await Promise.all(clients.map(({ pusher }) => join(pusher, name)));
    const { socket_id: socketId } = clients[0].pusher.connection;
    await publish(server, name, 1);
    await publish(server, name, 2, 2, { socket_id: socketId });
    await publish(server, name, 3);
    assert.deepEqual(await take(mine.events, 2), [1, 3]);
    assert.deepEqual(await take(theirs.events, 3), [1, 2, 3]);

    await publish(server, name, 4, 4, { socket_id: socketId });
    assert.deepEqual(await take(theirs.events, 1), [4]);
    await away(clients[0], () => away(clients[1], async () => {
      await publish(server, name, 5);
      await publish(server, name, 6, 7, { socket_id: socketId });
    }));
    assert.deepEqual((await take(theirs.events, 5)).slice(0, 4), [SUCCEEDED, 5, 6, 7]);
    const [succeeded, five, [told]] = await take(mine.events, 3);
    assert.deepEqual([succeeded, five, told], [SUCCEEDED, 5, 'tidewire:recovered']);
    await publish(server, name, 8);
    assert.deepEqual(await take(mine.events, 1), [8]);
    assert.match(mine.channel.position, /:8$/);
  });

  test('a burst with the door slammed again and again comes once and in order', async (t) => {
    const names = [unique('burst'), unique('private-burst')];
    const client = await behindDoor(t);
    const channels = await Promise.all(names.map((name) => join(client.pusher, name)));
    const total = 300;
    let published = 0;
    const publishing = (async () => {
      for (let n = 1; n <= total; n += 10) {
        const batch = numbers(n, n + 9).flatMap((m) => names.map((channel) => ({ channel, name: 'counted', data: { n: m } })));
        for (let at = 0; at < batch.length; at += 10) await sdkOf(server).triggerBatch(batch.slice(at, at + 10));
        published = n + 9;
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
    })();
    const cutting = (async () => {
      for (let round = 0; round < 2; round += 1) {
        await away(client);
        await connected(client.pusher);
      }
    })();
    await Promise.all([publishing, cutting]);
    assert.equal(published, total);
    for (const { events } of channels) {
      const came = (await events.until((event) => event === total)).filter((event) => typeof event === 'number');
      assert.deepEqual(came, numbers(1, total));
    }
  });

  test('client events are replayed where the rule says so', async (t) => {
    const name = unique('private-talk');
    const client = await behindDoor(t);
    const { events } = await join(client.pusher, name);
    const speaker = start(t, server, { endpoint });
    const { channel } = await join(speaker, name);
    channel.trigger('client-said', { n: 1 });
    assert.deepEqual(await take(events, 1), [['client-said', { n: 1 }]]);
    await away(client, async () => {
      channel.trigger('client-said', { n: 2 });
      channel.trigger('client-said', { n: 3 });
      // Its answer tells that the server has read them.
      await join(speaker, unique('other'));
    });
    assert.deepEqual(
      await take(events, 4), [SUCCEEDED, ['client-said', { n: 2 }], ['client-said', { n: 3 }], recovered(2)],
    );
  });

  test('what was trimmed meanwhile is told, and live goes on', async (t) => {
    const name = unique('short');
    const client = await behindDoor(t);
    const { events } = await join(client.pusher, name);
    await publish(server, name, 1);
    assert.deepEqual(await take(events, 1), [1]);
    await away(client, () => publish(server, name, 2, 6));
    assert.deepEqual(await take(events, 2), [SUCCEEDED, ['tidewire:resync', { reason: 'expired', oldest: 4 }]]);
    await publish(server, name, 7);
    assert.deepEqual(await take(events, 1), [7]);
  });

  test('just what is kept is enough', async (t) => {
    const name = unique('short');
    const client = await behindDoor(t);
    const { events } = await join(client.pusher, name);
    await publish(server, name, 1);
    await events.next();
    await away(client, () => publish(server, name, 2, 4));
    assert.deepEqual(await take(events, 5), [SUCCEEDED, 2, 3, 4, recovered(3)]);
  });

  test('too late with onGap reject is refused, and the next subscription is live', async (t) => {
    const name = unique('private-short');
    const client = await behindDoor(t, { replay: { onGap: 'reject' } });
    const { events, channel } = await join(client.pusher, name);
    await publish(server, name, 1);
    await events.next();
    await away(client, () => publish(server, name, 2, 6));
    const [[error, refusal], resync] = await take(events, 2);
    assert.equal(error, 'pusher:subscription_error');
    const { type, status, reason, oldest } = refusal;
    assert.deepEqual({ type, status, reason, oldest }, { type: 'ReplayGone', status: 410, reason: 'expired', oldest: 4 });
    assert.deepEqual(resync, ['tidewire:resync', { reason: 'expired', oldest: 4 }]);
    assert.equal(channel.position, undefined);
    client.pusher.subscribe(name);
    assert.deepEqual(await take(events, 1), [SUCCEEDED]);
    await publish(server, name, 7);
    assert.deepEqual(await take(events, 1), [7]);
  });

  for (const [what, app, name] of [['a channel that is not stored', stored, 'unstored'], ['an app without replay', plain, 'news']]) {
    test(`on ${what} everything is as without the plugin`, async (t) => {
      const channelName = unique(name);
      const door = await server.door(t);
      const pusher = start(t, door, { app });
      const client = { door, pusher };
      const { events, channel } = await join(pusher, channelName);
      await publish(server, channelName, 1, 2, { app });
      assert.deepEqual(await take(events, 2), [1, 2]);
      assert.equal(channel.position, undefined);
      await away(client, () => publish(server, channelName, 3, 3, { app }));
      assert.deepEqual(await take(events, 1), [SUCCEEDED]);
      await publish(server, channelName, 4, 4, { app });
      assert.deepEqual(await take(events, 1), [4]);
    });
  }
});
