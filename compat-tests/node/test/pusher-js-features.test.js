// What only the newer pusher-js releases know: encryption, caches, counts, sign-in, user channels, watch-lists.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startAuthEndpoint } from '../lib/auth-endpoint.js';
import { startBreakableProxy } from '../lib/breakable-proxy.js';
import {
  connectClient, errorWithCode, framesOf, join, reaches, releases, settled, startClient, withUsers,
} from '../lib/pusher-js.js';
import { nodeSdk } from '../lib/sdk.js';
import { skipWithoutBinary, startServer } from '../lib/server.js';
import { namedApp, skipWithout } from '../lib/target.js';
import { Inbox, unique } from '../lib/wait.js';

const sdk = nodeSdk();
let endpoint;
before(async () => { endpoint = await startAuthEndpoint(sdk); });
after(() => endpoint.stop());

/** Signs in as `user` and waits until the user's own channel is subscribed. */
async function signedIn(t, release, user, params = {}) {
  const pusher = startClient(t, release, { endpoint, params: { user_id: user, ...params } });
  const frames = framesOf(pusher);
  const watched = new Inbox(`the watch-list of ${user}`);
  for (const name of ['online', 'offline']) {
    pusher.user.watchlist.bind(name, (event) => watched.push({ name, user_ids: event.user_ids }));
  }
  pusher.signin();
  await reaches(pusher, 'connected');
  await frames.until(({ event, channel }) =>
    event === 'pusher_internal:subscription_succeeded' && channel === `#server-to-user-${user}`, 'the user channel');
  return { pusher, watched };
}

for (const release of releases.filter(({ major }) => major >= 5)) {
  const { version } = release;
  test(`S110 S111 pusher-js ${version} decrypts what the SDK encrypted`, async (t) => {
    const pusher = await connectClient(t, release, { endpoint });
    const name = unique('private-encrypted-vault');
    const { events, first } = await join(pusher, name);
    assert.deepEqual(first, {});
    await sdk.trigger(name, 'secret', { text: 'nobody else reads this: é 😀' });
    assert.deepEqual(await events.next(), { name: 'secret', data: { text: 'nobody else reads this: é 😀' } });
    await sdk.triggerBatch([{ channel: name, name: 'batched', data: [1] }, { channel: name, name: 'twice', data: 'x' }]);
    assert.deepEqual(await events.next(), { name: 'batched', data: [1] });
    assert.deepEqual(await events.next(), { name: 'twice', data: 'x' });
  });
}

for (const release of releases) {
  const { version } = release;
  test(`S153 S134 pusher-js ${version} receives the largest and the strangest text unchanged`, async (t) => {
    const pusher = await connectClient(t, release);
    const name = unique('bytes');
    const { events } = await join(pusher, name);
    const strange = [
      '\u0000\u0001\u001f\u007f', '</script><!--', '\u2028\u2029', '"\\"/\b\f\n\r\t', 'é ä 日本語 𝔘𝔫𝔦 👩‍👩‍👧‍👦', '\ufeff\ufffd',
      Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('latin1'),
    ];
    for (const text of strange) await sdk.trigger(name, 'strange', { text });
    for (const text of strange) assert.deepEqual(await events.next(), { name: 'strange', data: { text } });
    const wide = '日'.repeat(3412) + 'xx';
    assert.equal(Buffer.byteLength(JSON.stringify(wide)), 10_240);
    await sdk.trigger(name, 'wide', JSON.stringify(wide));
    assert.deepEqual(await events.next(), { name: 'wide', data: wide });
    await assert.rejects(sdk.trigger(name, 'wider', JSON.stringify(`${wide}x`)), { status: 413 });
  });

  test(`S102 S103 S104 S105 S108 pusher-js ${version} gets the last event of a cache channel, or a cache miss`, async (t) => {
    const pusher = await connectClient(t, release, { endpoint, params: { user_id: 'u-1' } });
    for (const prefix of ['cache-', 'private-cache-', 'presence-cache-', 'private-encrypted-cache-']) {
      if (prefix.startsWith('private-encrypted') && release.major < 5) continue;
      const name = unique(`${prefix}price`);
      const missed = await join(pusher, name);
      assert.equal((await missed.events.next()).name, 'pusher:cache_miss');
      pusher.unsubscribe(name);
      await settled(pusher);
      await sdk.trigger(name, 'old', { v: 1 });
      await sdk.trigger(name, 'new', { v: 2 });
      const hit = await join(pusher, name);
      assert.deepEqual(await hit.events.next(), { name: 'new', data: { v: 2 } });
    }
  });
}

for (const release of withUsers) {
  const { version } = release;

  describe(`pusher-js ${version} with users`, () => {
    test(`S116 S120 S122 pusher-js ${version} signs in and hears what is sent to its user on every connection`, async (t) => {
      const user = unique('user');
      const [one, two] = [await signedIn(t, release, user), await signedIn(t, release, user)];
      assert.equal(one.pusher.user.user_data.id, user);
      const inboxes = [one, two].map(({ pusher }) => {
        const inbox = new Inbox('the user events');
        pusher.user.bind('notice', (data) => inbox.push(data));
        return inbox;
      });
      await sdk.sendToUser(user, 'notice', { text: 'hello' });
      for (const inbox of inboxes) assert.deepEqual(await inbox.next(), { text: 'hello' });
    });

    test(`S085 pusher-js ${version} joins presence as its signed-in user when the ticket names nobody`, async (t) => {
      const user = unique('user');
      const { pusher } = await signedIn(t, release, user, { name: 'Ada', no_channel_data: '1' });
      const { channel } = await join(pusher, unique('presence-who'));
      assert.deepEqual(channel.members.me, { id: user, info: { name: 'Ada' } });
    });

    test(`S124 S125 pusher-js ${version} watches others come online and go offline`, async (t) => {
      const [ada, lin] = [unique('ada'), unique('lin')];
      const { watched } = await signedIn(t, release, ada, { watchlist: lin });
      assert.deepEqual(await watched.next(), { name: 'offline', user_ids: [lin] });
      const first = await signedIn(t, release, lin);
      assert.deepEqual(await watched.next(), { name: 'online', user_ids: [lin] });
      const second = await signedIn(t, release, lin);
      first.pusher.disconnect();
      second.pusher.disconnect();
      assert.deepEqual(await watched.next(), { name: 'offline', user_ids: [lin] });
      await signedIn(t, release, lin);
      assert.deepEqual(await watched.next(), { name: 'online', user_ids: [lin] }, 'each change is told once');
    });

    test(`S181 S182 pusher-js ${version} loses every connection of a terminated user, and nobody else does`, async (t) => {
      const user = unique('user');
      const [one, two] = [await signedIn(t, release, user), await signedIn(t, release, user)];
      const other = await signedIn(t, release, unique('user'));
      const member = await connectClient(t, release, { endpoint, params: { user_id: user } });
      const { channel, events } = await join(member, unique('presence-survivor'));
      await sdk.terminateUserConnections(user);
      await reaches(one.pusher, 'disconnected');
      await reaches(two.pusher, 'disconnected');
      await sdk.trigger(channel.name, 'still-here', {});
      assert.equal((await events.next()).name, 'still-here');
      assert.equal(other.pusher.connection.state, 'connected');
      assert.equal((await sdk.terminateUserConnections(unique('nobody'))).status, 200);
    });

    test(`S113 pusher-js ${version} learns how many subscribe`, { skip: skipWithout('counted') }, async (t) => {
      const app = namedApp('counted');
      const name = unique('counted');
      const one = await connectClient(t, release, { app });
      const first = await join(one, name);
      assert.deepEqual(await first.events.next(), { name: 'pusher:subscription_count', data: { subscription_count: 1 } });
      const two = await connectClient(t, release, { app });
      const second = await join(two, name);
      for (const { events } of [first, second]) {
        assert.deepEqual(await events.next(), { name: 'pusher:subscription_count', data: { subscription_count: 2 } });
      }
      assert.equal(first.channel.subscriptionCount, 2);
      two.unsubscribe(name);
      assert.deepEqual(await first.events.next(), { name: 'pusher:subscription_count', data: { subscription_count: 1 } });
    });
  });
}

test('S047 pusher-js subscribing to one channel from many places receives each event once', async (t) => {
  const pusher = await connectClient(t, releases[0]);
  const name = unique('shared');
  const { events } = await join(pusher, name);
  assert.equal(pusher.subscribe(name), pusher.channel(name));
  await sdk.trigger(name, 'once', {});
  await sdk.trigger(name, 'marker', {});
  assert.deepEqual((await events.until((event) => event.name === 'marker')).map((event) => event.name), ['once', 'marker']);
});

test('S129 pusher-js receives a hundred events in the order they were triggered', async (t) => {
  const pusher = await connectClient(t, releases[0]);
  const name = unique('ordered');
  const { events } = await join(pusher, name);
  for (let n = 1; n <= 100; n += 1) await sdk.trigger(name, 'count', { n });
  for (let n = 1; n <= 100; n += 1) assert.equal((await events.next()).data.n, n);
});

test('S026 pusher-js is told 4200 by a draining server and finds its channels again on the next one', {
  skip: skipWithoutBinary,
}, async (t) => {
  const [old, next] = [await startServer(t, { server: { drain_seconds: 2 } }), await startServer(t)];
  const balancer = await startBreakableProxy(t, old);
  const pusher = await connectClient(t, releases[0], { address: balancer });
  const { events } = await join(pusher, unique('rolling'));
  balancer.leadTo(next);
  old.signal('SIGTERM');
  await errorWithCode(pusher, 4200);
  assert.equal((await events.next('the resubscription')).name, 'pusher:subscription_succeeded');
  assert.deepEqual(await old.exited, { code: 0, signal: null });
});
