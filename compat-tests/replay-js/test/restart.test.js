// The server goes away and comes back: killed, drained, with its store on disk or in memory.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { unique } from '../../node/lib/wait.js';
import { connected, join, lost, numbers, start, SUCCEEDED, take } from '../lib/client.js';
import { publish, startEndpoint } from '../lib/sdk.js';
import { skip, startServer } from '../lib/server.js';

/** Between two messages: no more than are kept are to come while the server is away. */
const pause = () => new Promise((resolve) => setTimeout(resolve, 10));

const recovered = (count) => ['tidewire:recovered', { count }];

/** A client with two channels, with two messages each; `restart` resolves when the client is back. */
async function prepare(t, server) {
  const endpoint = await startEndpoint(t, server);
  const door = await server.door(t);
  const pusher = start(t, door, { endpoint });
  const names = [unique('news'), unique('private-orders')];
  const channels = [];
  for (const name of names) {
    const joined = await join(pusher, name);
    await publish(server, name, 1, 2);
    assert.deepEqual(await take(joined.events, 2), [1, 2]);
    channels.push(joined);
  }
  const restart = async (signal, acts) => {
    const gone = lost(pusher);
    await server.restart(door, signal, acts);
    await gone;
    await connected(pusher);
  };
  return { names, channels, restart };
}

describe('a restart', { skip, concurrency: true }, () => {
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    test(`after ${signal} loses nothing and repeats nothing`, async (t) => {
      const server = await startServer(t);
      const { names, channels, restart } = await prepare(t, server);
      for (let first = 3; first <= 9; first += 3) {
        await restart(signal, {
          whileShut: async () => {
            for (const name of names) await publish(server, name, first, first + 1);
          },
        });
        for (const { events } of channels) {
          assert.deepEqual(await take(events, 4), [SUCCEEDED, first, first + 1, recovered(2)]);
        }
        for (const name of names) await publish(server, name, first + 2);
        for (const { events } of channels) assert.deepEqual(await take(events, 1), [first + 2]);
      }
    });
  }

  test('in the middle of publishing comes once and in order, everything that was acknowledged', async (t) => {
    const server = await startServer(t);
    const { names: [name], channels: [{ events }], restart } = await prepare(t, server);
    let isOver = false;
    let total = 2;
    const publishing = (async () => {
      while (!isOver) {
        total += 1;
        const body = { name: 'counted', channel: name, data: JSON.stringify({ n: total }), idempotency_key: `n-${total}` };
        // A publisher that retries with its key until it is told that the message is in.
        do await pause(); while (!await server.api('POST', '/events', { body }).then(() => true, () => false));
      }
    })();
    const came = [];
    for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL']) {
      came.push(...await events.until((event) => typeof event === 'number'));
      await restart(signal);
    }
    isOver = true;
    await publishing;
    if (came.at(-1) !== total) came.push(...await events.until((event) => event === total));
    assert.deepEqual(came.filter((event) => typeof event === 'number'), numbers(3, total));
    assert.deepEqual(came.filter((event) => event[0] === 'tidewire:resync'), []);
  });

  test('of a store in memory is told, and live goes on', async (t) => {
    const server = await startServer(t, { store: 'memory' });
    const { names, channels, restart } = await prepare(t, server);
    await restart('SIGKILL');
    for (const { events } of channels) {
      const [succeeded, [event, { reason }]] = await take(events, 2);
      assert.deepEqual([succeeded, event, reason], [SUCCEEDED, 'tidewire:resync', 'stream_reset']);
    }
    for (const name of names) await publish(server, name, 3);
    for (const { events } of channels) assert.deepEqual(await take(events, 1), [3]);
  });

  test('without replay any more is told once, and live goes on', async (t) => {
    const server = await startServer(t);
    const { names: [name], channels: [{ events, channel }], restart } = await prepare(t, server);
    await restart('SIGTERM', { whileDown: () => server.configure({}, { isStored: false }) });
    assert.deepEqual(await take(events, 2), [SUCCEEDED, ['tidewire:resync', { reason: 'disabled' }]]);
    assert.equal(channel.position, undefined);
    await publish(server, name, 3);
    assert.deepEqual(await take(events, 1), [3]);
  });
});

