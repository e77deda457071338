// Replay through the Node server SDKs as they are: they pass unknown parameters on.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { connect } from '../lib/raw.js';
import { api } from '../lib/rest.js';
import { edgeSdk, nodeSdk } from '../lib/sdk.js';
import { namedApp, skipWithout, target } from '../lib/target.js';
import { unique } from '../lib/wait.js';

const skip = skipWithout('stored');
const stored = namedApp('stored');

for (const { named, make } of [{ named: 'pusher (node)', make: nodeSdk }, { named: 'pusher-http-edge', make: edgeSdk }]) {
  const sdk = skip ? null : make(stored);

  describe(`${named} and replay`, { skip }, () => {
    test(`${named} publishes once with idempotency_key, and learns the position`, async (t) => {
      const client = await connect(t, { app: stored });
      const name = unique('orders');
      await client.join(name);
      const options = { idempotency_key: 'order-77', info: 'position' };
      const first = await sdk.trigger(name, 'order.paid', { id: 77 }, options);
      const repeat = await sdk.trigger(name, 'order.paid', { id: 77 }, options);
      assert.equal(first.headers.get('tidewire-deduplicated'), null);
      assert.equal(repeat.headers.get('tidewire-deduplicated'), 'true');
      const [told, again] = [await first.json(), await repeat.json()];
      assert.match(told.channels[name].position, /^[0-9A-Za-z]+\.\d+:1$/);
      assert.deepEqual(again, told);
      await sdk.trigger(name, 'done', {});
      const events = (await client.until('done')).map(({ event }) => event);
      assert.deepEqual(events, ['order.paid', 'done']);
    });

    test(`${named} gets an error for another event under the same key`, async () => {
      const name = unique('orders');
      await sdk.trigger(name, 'e', { n: 1 }, { idempotency_key: 'k' });
      await assert.rejects(
        sdk.trigger(name, 'e', { n: 2 }, { idempotency_key: 'k' }),
        (error) => error.status === 409 && /another event/.test(error.body),
      );
    });

    test(`${named} gives each item of a batch its key`, async () => {
      const name = unique('batch');
      const batch = () => ['1', '2'].map((id) => (
        { channel: name, name: 'e', data: { id }, idempotency_key: `k-${id}`, info: 'position' }
      ));
      const first = await sdk.triggerBatch(batch());
      const repeat = await sdk.triggerBatch(batch());
      assert.equal(repeat.headers.get('tidewire-deduplicated'), 'true');
      const told = await first.json();
      assert.deepEqual(told.batch.map(({ position }) => position.split(':')[1]), ['1', '2']);
      assert.deepEqual(await repeat.json(), told);
    });

    test(`${named} repeats an event of an encrypted channel, which it encrypts anew`, async (t) => {
      const client = await connect(t, { app: stored });
      const name = unique('private-encrypted-orders');
      await client.join(name);
      const options = { idempotency_key: 'k' };
      await sdk.trigger(name, 'e', { id: 77 }, options);
      const repeat = await sdk.trigger(name, 'e', { id: 77 }, options);
      assert.equal(repeat.headers.get('tidewire-deduplicated'), 'true');
      await sdk.trigger(name, 'done', {});
      const events = (await client.until('done')).map(({ event }) => event);
      assert.deepEqual(events, ['e', 'done']);
    });

    test(`${named} reads a position first, and the history after it`, async () => {
      const name = unique('orders');
      const read = async (path, params) => (await sdk.get({ path, params })).json();
      const { position } = await read(`/channels/${name}`, { info: 'position' });
      assert.match(position, /:0$/);
      for (const id of [1, 2, 3]) await sdk.trigger(name, 'order.paid', { id });
      const page = await read(`/channels/${name}/history`, { direction: 'forward', from: position, limit: '2' });
      assert.deepEqual(page.items.map(({ serial, event, data }) => [serial, event, data]), [
        [1, 'order.paid', '{"id":1}'],
        [2, 'order.paid', '{"id":2}'],
      ]);
      assert.equal(page.complete, false);
      const last = await read(`/channels/${name}/history`, { cursor: page.next });
      assert.deepEqual([last.items.map(({ serial }) => serial), last.complete, last.next], [[3], true, null]);
      const newest = await read(`/channels/${name}/history`);
      assert.deepEqual(newest.items.map(({ serial }) => serial), [3, 2, 1]);
      const state = await read(`/channels/${name}/history/state`);
      assert.deepEqual([state.floor, state.head, state.messages], [1, 3, 3]);
    });

    test(`${named} learns that a position is gone`, async () => {
      const name = unique('orders');
      await sdk.trigger(name, 'e', {});
      await assert.rejects(
        sdk.get({ path: `/channels/${name}/history`, params: { direction: 'forward', from: 'zz.1:1' } }),
        (error) => error.status === 410 && JSON.parse(error.body).reason === 'stream_reset',
      );
    });
  });
}

describe('replay and signed queries', { skip }, () => {
  test('createSignedQueryString signs the call that purges a channel', async () => {
    const sdk = nodeSdk(stored);
    const name = unique('orders');
    await sdk.trigger(name, 'e', { id: 1 });
    const path = `/apps/${stored.id}/channels/${name}/history`;
    const query = sdk.createSignedQueryString({ method: 'DELETE', path });
    const reply = await fetch(`${target.http}${path}?${query}`, { method: 'DELETE' });
    assert.equal(reply.status, 200);
    const state = await reply.json();
    assert.deepEqual([state.floor, state.head, state.messages], [2, 1, 0]);
    const page = await (await sdk.get({ path: `/channels/${name}/history` })).json();
    assert.deepEqual(page.items, []);
  });

  test('a library without a slot for the key sends it in a header', async () => {
    const name = unique('orders');
    const body = { name: 'e', data: '1', channels: [name] };
    const headers = { 'X-Idempotency-Key': 'k-1' };
    const first = await api('POST', '/events', { app: stored, body, headers });
    const repeat = await api('POST', '/events', { app: stored, body, headers });
    assert.deepEqual([first.status, first.headers['tidewire-deduplicated']], [200, undefined]);
    assert.deepEqual([repeat.status, repeat.text, repeat.headers['tidewire-deduplicated']], [200, '{}', 'true']);
  });
});

test('an app without replay says so', async () => {
  const reply = await api('GET', `/channels/${unique('orders')}/history`);
  assert.deepEqual([reply.status, reply.json.error], [404, 'replay_disabled']);
});
