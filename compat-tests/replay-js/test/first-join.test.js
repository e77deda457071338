// Where a subscription begins, and what becomes of frames that get lost or come twice on one connection.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { unique } from '../../node/lib/wait.js';
import { heard, join, numbers, releases, start, SUCCEEDED, take } from '../lib/client.js';
import { publish, startEndpoint } from '../lib/sdk.js';
import { Shared, skip, startServer } from '../lib/server.js';

let server;
let endpoint;

const recovered = (count) => ['tidewire:recovered', { count }];

/** What a new client with these options hears of a channel, until the answer and the past are over. */
async function begin(t, name, channelOptions, count) {
  const pusher = start(t, server, { endpoint, replay: { channels: { [name]: channelOptions } } });
  const events = heard(pusher.subscribe(name));
  return take(events, count);
}

/** Stands between the socket and pusher-js: swallows the message with a serial, or gives every one twice. */
function tamper(pusher) {
  const { socket } = pusher.connection.connection.transport;
  const { onmessage } = socket;
  let swallowed;
  let times = 1;
  socket.onmessage = (message) => {
    const { serial } = JSON.parse(message.data);
    if (serial !== undefined && serial === swallowed) {
      swallowed = undefined;
      return;
    }
    for (let time = 0; time < (serial === undefined ? 1 : times); time += 1) onmessage(message);
  };
  return { swallow: (serial) => { swallowed = serial; }, repeat: () => { times = 2; } };
}

describe('one connection', { skip, concurrency: true }, () => {
  const shared = new Shared();
  before(async () => {
    server = await startServer(shared, { store: 'memory' });
    endpoint = await startEndpoint(shared, server);
  });
  after(() => shared.end());

  describe('a first subscription', { concurrency: true }, () => {
    test('is live', async (t) => {
      const name = unique('news');
      await publish(server, name, 1, 3);
      const { events, channel } = await join(start(t, server), name);
      assert.match(channel.position, /:3$/);
      await publish(server, name, 4);
      assert.deepEqual(await take(events, 1), [4]);
    });

    test('to a channel nobody published to has a position', async (t) => {
      const name = unique('empty');
      const { events, channel } = await join(start(t, server), name);
      const before = channel.position;
      assert.match(before, /^[0-9A-Za-z]+\.\d+:\d+$/);
      await publish(server, name, 1);
      await events.next();
      assert.notEqual(channel.position, before);
    });

    for (const [what, rewind, expected] of [
      ['a count', { count: 2 }, [SUCCEEDED, 4, 5, recovered(2)]],
      ['more than there is', { count: 100 }, [SUCCEEDED, ...numbers(1, 5), recovered(5)]],
      ['seconds', { seconds: 3600 }, [SUCCEEDED, ...numbers(1, 5), recovered(5)]],
      ['the earliest', 'earliest', [SUCCEEDED, ...numbers(1, 5), recovered(5)]],
    ]) {
      test(`rewinds to ${what}`, async (t) => {
        const name = unique('private-news');
        await publish(server, name, 1, 5);
        assert.deepEqual(await begin(t, name, { rewind }, expected.length), expected);
      });
    }

    test('that rewinds too far is refused', async (t) => {
      const name = unique('news');
      const [[event, { type, status }]] = await begin(t, name, { rewind: { count: 1e6 } }, 1);
      assert.deepEqual([event, type, status], ['pusher:subscription_error', 'ReplayInvalid', 400]);
    });

    test('goes on from where the backend read the position', async (t) => {
      const name = unique('private-state');
      await publish(server, name, 1, 2);
      const { position } = (await server.api('GET', `/channels/${name}`, { params: { info: 'position' } })).json;
      await publish(server, name, 3, 4);
      assert.deepEqual(await begin(t, name, { from: position }, 4), [SUCCEEDED, 3, 4, recovered(2)]);
    });

    test('to a channel that is not stored is told when it wanted the past', async (t) => {
      assert.deepEqual(
        await begin(t, unique('unstored'), { rewind: 'earliest' }, 2),
        [SUCCEEDED, ['tidewire:resync', { reason: 'disabled' }]],
      );
    });

    test('of a reloaded page goes on where the old page was', async (t) => {
      const map = new Map();
      const storage = {
        getItem: (key) => map.get(key) ?? null,
        setItem: (key, value) => map.set(key, value),
        removeItem: (key) => map.delete(key),
      };
      const name = unique('private-orders');
      const page = start(t, server, { endpoint, replay: { storage } });
      const { events } = await join(page, name);
      await publish(server, name, 1, 2);
      assert.deepEqual(await take(events, 2), [1, 2]);
      page.disconnect();
      await publish(server, name, 3, 4);
      const reloaded = start(t, server, { endpoint, replay: { storage } });
      assert.deepEqual(await take(heard(reloaded.subscribe(name)), 4), [SUCCEEDED, 3, 4, recovered(2)]);
    });

    test('after an unsubscription begins anew', async (t) => {
      const name = unique('orders');
      const pusher = start(t, server);
      const { events } = await join(pusher, name);
      await publish(server, name, 1);
      await events.next();
      pusher.unsubscribe(name);
      // Its answer tells that the server has read the unsubscription.
      await join(pusher, unique('other'));
      await publish(server, name, 2);
      const again = await join(pusher, name);
      await publish(server, name, 3);
      assert.deepEqual(await take(again.events, 1), [3]);
    });
  });

  describe('a frame', { concurrency: true }, () => {
    for (const release of releases) {
      for (const kind of ['news', 'private-orders', 'presence-room', 'private-encrypted-vault']) {
        test(`that gets lost is repaired on the same connection (pusher-js ${release.version}, ${kind})`, async (t) => {
          const name = unique(kind);
          const pusher = start(t, server, { release, endpoint, params: { user_id: unique('user') } });
          const { events } = await join(pusher, name);
          const { socket_id: socketId } = pusher.connection;
          const { swallow } = tamper(pusher);
          await publish(server, name, 1);
          swallow(2);
          await publish(server, name, 2, 4);
          const came = await take(events, 4);
          await publish(server, name, 5);
          assert.deepEqual([...came, ...await take(events, 2)].filter((event) => typeof event === 'number'), [1, 2, 3, 4, 5]);
          assert.equal(pusher.connection.socket_id, socketId);
        });
      }
    }

    test('that comes twice is dropped', async (t) => {
      const name = unique('news');
      const pusher = start(t, server);
      const { events } = await join(pusher, name);
      const { repeat } = tamper(pusher);
      repeat();
      await publish(server, name, 1, 3);
      assert.deepEqual(await take(events, 3), [1, 2, 3]);
      await join(pusher, unique('other'));
      assert.equal(events.waiting, 0);
    });
  });
});
