// The Node server SDKs: `pusher`, and its fetch-based sibling `pusher-http-edge`, with only host and port changed.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MASTER_KEY } from '../lib/auth-endpoint.js';
import { connect, connectMany } from '../lib/raw.js';
import { edgeSdk, nodeSdk, Pusher, PusherEdge } from '../lib/sdk.js';
import { app, App, namedApp, skipWithout, target } from '../lib/target.js';
import { unique } from '../lib/wait.js';

const sdks = [
  { named: 'pusher (node)', make: nodeSdk, Sdk: Pusher },
  { named: 'pusher-http-edge', make: edgeSdk, Sdk: PusherEdge },
];

for (const { named, make, Sdk } of sdks) {
  const sdk = make();

  describe(named, () => {
    test(`S227 every call of ${named} succeeds with only host, port and TLS changed`, async (t) => {
      const client = await connect(t);
      const [name, presence, encrypted] = [unique('all'), unique('presence-all'), unique('private-encrypted-all')];
      await client.join(name);
      await client.join(presence, { user_id: 'u-1' });
      const replies = [
        await sdk.trigger(name, 'e', { a: 1 }),
        await sdk.trigger([name, presence], 'e', 'text', { socket_id: client.socketId }),
        await sdk.trigger(encrypted, 'e', { a: 1 }),
        await sdk.triggerBatch([{ channel: name, name: 'e', data: { a: 1 } }, { channel: encrypted, name: 'e', data: 1 }]),
        await sdk.sendToUser('u-1', 'e', { a: 1 }),
        await sdk.get({ path: '/channels' }),
        await sdk.get({ path: '/channels', params: { filter_by_prefix: 'presence-', info: 'user_count' } }),
        await sdk.get({ path: `/channels/${name}` }),
        await sdk.get({ path: `/channels/${presence}/users` }),
        await sdk.terminateUserConnections(unique('user')),
      ];
      for (const reply of replies) {
        assert.equal(reply.status, 200);
        assert.equal(typeof await reply.json(), 'object');
      }
    });

    test(`S151 S152 ${named} triggers to one channel and to several`, async (t) => {
      const client = await connect(t);
      const names = [unique('a'), unique('b')];
      for (const name of names) await client.join(name);
      const one = await sdk.trigger(names[0], 'one', { n: 1 });
      assert.deepEqual([one.status, await one.json()], [200, {}]);
      assert.deepEqual(await client.next(), { event: 'one', channel: names[0], data: '{"n":1}' });
      const both = await sdk.trigger(names, 'both', 'text');
      assert.deepEqual([both.status, await both.json()], [200, {}]);
      const frames = [await client.next(), await client.next()];
      assert.deepEqual(frames.map(({ event, data }) => [event, data]), [['both', 'text'], ['both', 'text']]);
      assert.deepEqual(frames.map(({ channel }) => channel).sort(), [...names].sort());
    });

    test(`S132 S133 ${named} leaves out the connection named by socket_id, in trigger and in batch`, async (t) => {
      const [one, two] = await connectMany(t, 2);
      const name = unique('except');
      await one.join(name);
      await two.join(name);
      await sdk.trigger(name, 'theirs', {}, { socket_id: one.socketId });
      await sdk.triggerBatch([
        { channel: name, name: 'batched', data: {}, socket_id: one.socketId },
        { channel: name, name: 'everybody', data: {}, socket_id: '1.1' },
      ]);
      const events = async (client) => (await client.until('everybody')).map(({ event }) => event);
      assert.deepEqual(await events(one), ['everybody']);
      assert.deepEqual(await events(two), ['theirs', 'batched', 'everybody']);
    });

    test(`S163 ${named} learns user counts while it triggers`, async (t) => {
      const presence = unique('presence-count');
      const [one, two, three] = await connectMany(t, 3);
      await one.join(presence, { user_id: 'u-1' });
      await two.join(presence, { user_id: 'u-1' });
      await three.join(presence, { user_id: 'u-2' });
      const reply = await sdk.trigger([presence, unique('news')], 'e', {}, { info: 'user_count' });
      const { channels } = await reply.json();
      assert.deepEqual(channels[presence], { user_count: 2 });
    });

    test(`S163 S113 ${named} learns subscription counts while it triggers`, { skip: skipWithout('counted') }, async (t) => {
      const counted = namedApp('counted');
      const [one, two] = await connectMany(t, 2, { app: counted });
      const name = unique('news');
      await one.join(name);
      await two.join(name);
      const reply = await make(counted).trigger(name, 'e', {}, { info: 'subscription_count' });
      assert.deepEqual(await reply.json(), { channels: { [name]: { subscription_count: 2 } } });
    });

    test(`S167 S168 ${named} triggers batches in order and gets an answer per event`, async (t) => {
      const client = await connect(t);
      const presence = unique('presence-batch');
      await client.join(presence, { user_id: 'u-1' });
      const batch = Array.from({ length: 10 }, (_, n) => ({ channel: presence, name: 'e', data: { n } }));
      assert.deepEqual(await (await sdk.triggerBatch(batch)).json(), {});
      for (let n = 0; n < 10; n += 1) assert.deepEqual(JSON.parse((await client.next()).data), { n });
      const reply = await sdk.triggerBatch([
        { channel: presence, name: 'e', data: 1, info: 'user_count' },
        { channel: presence, name: 'e', data: 2 },
      ]);
      assert.deepEqual(await reply.json(), { batch: [{ user_count: 1 }, {}] });
      const tooMany = sdk.triggerBatch([...batch, { channel: presence, name: 'e', data: '' }]);
      await assert.rejects(tooMany, { status: 400 });
    });

    test(`S111 ${named} publishes ciphertext that arrives byte for byte`, async (t) => {
      const client = await connect(t);
      const name = unique('private-encrypted-raw');
      assert.equal((await client.join(name)).data, '{}');
      await sdk.trigger(name, 'sealed', { secret: true });
      const { event, data } = await client.next();
      assert.equal(event, 'sealed');
      assert.deepEqual(Object.keys(JSON.parse(data)), ['nonce', 'ciphertext']);
      assert.doesNotMatch(data, /secret/);
    });

    test(`S171 S175 S178 S179 ${named} reads channels, one channel and its users`, async (t) => {
      const presence = unique('presence-read');
      const [one, two] = await connectMany(t, 2);
      await one.join(presence, { user_id: 'u-1' });
      await two.join(presence, { user_id: 'u-2' });
      const read = async (path, params) => (await sdk.get({ path, params })).json();
      assert.deepEqual(await read('/channels', { filter_by_prefix: presence, info: 'user_count' }), {
        channels: { [presence]: { user_count: 2 } },
      });
      assert.deepEqual(await read(`/channels/${presence}`, { info: 'user_count' }), { occupied: true, user_count: 2 });
      assert.deepEqual(await read(`/channels/${unique('never')}`), { occupied: false });
      const { users } = await read(`/channels/${presence}/users`);
      assert.deepEqual(users.map(({ id }) => id).sort(), ['u-1', 'u-2']);
      assert.deepEqual(await read(`/channels/${unique('presence-empty')}/users`), { users: [] });
    });

    test(`S181 S182 ${named} terminates a user's connections`, async (t) => {
      const user = unique('user');
      const client = await connect(t);
      await client.signIn({ id: user });
      assert.deepEqual(await (await sdk.terminateUserConnections(user)).json(), {});
      await client.refused(4009);
      assert.equal((await client.closing()).code, 4009);
      assert.deepEqual(await (await sdk.terminateUserConnections(user)).json(), {});
    });

    test(`S122 ${named} sends to a user`, async (t) => {
      const user = unique('user');
      const client = await connect(t);
      await client.signIn({ id: user });
      await client.join(`#server-to-user-${user}`);
      await sdk.sendToUser(user, 'notice', { n: 1 });
      assert.deepEqual(await client.next(), { event: 'notice', channel: `#server-to-user-${user}`, data: '{"n":1}' });
    });

    test(`S149 S140 ${named} is told why it was refused`, async () => {
      const wrong = make(new App(app.id, app.key, 'wrong-secret'));
      await assert.rejects(wrong.trigger('news', 'e', {}), (error) =>
        error instanceof Sdk.RequestError && error.status === 401 && /^Invalid signature/.test(error.body));
      const unknown = make(new App(app.id, 'unknown-key', 'x'));
      await assert.rejects(unknown.get({ path: '/channels' }), (error) =>
        error.status === 401 && /Unknown auth_key/.test(error.body));
    });

    test(`S153 ${named} is refused more data than an event may have`, async () => {
      assert.equal((await sdk.trigger('news', 'e', 'x'.repeat(10_240))).status, 200);
      await assert.rejects(sdk.trigger('news', 'e', 'x'.repeat(10_241)), (error) =>
        error.status === 413 && /10240/.test(error.body));
    });

    test(`S148 ${named} reads a channel whose name uses the whole alphabet`, async (t) => {
      const client = await connect(t);
      const name = unique('A-z_0=9@x,y.z;q');
      await client.join(name);
      assert.deepEqual(await (await sdk.get({ path: `/channels/${name}` })).json(), { occupied: true });
    });
  });
}

test('S227 pusher (node) is configured by URL', async () => {
  const { http } = target;
  const url = http.replace('//', `//${app.key}:${app.secret}@`);
  const sdk = Pusher.forURL(`${url}/apps/${app.id}`, { encryptionMasterKeyBase64: MASTER_KEY });
  assert.equal((await sdk.trigger('news', 'e', {})).status, 200);
});
