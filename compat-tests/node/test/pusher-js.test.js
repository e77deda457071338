// pusher-js, every release line from 4 to 8: what an application of any age does with a channel server.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startAuthEndpoint } from '../lib/auth-endpoint.js';
import { startBreakableProxy } from '../lib/breakable-proxy.js';
import {
  codeOf, connectClient, errorWithCode, eventsOf, framesOf, join, reaches, releases, startClient,
} from '../lib/pusher-js.js';
import { nodeSdk } from '../lib/sdk.js';
import { App, app } from '../lib/target.js';
import { Inbox, unique } from '../lib/wait.js';

const sdk = nodeSdk();
let endpoint;
let wrongEndpoint;
before(async () => {
  endpoint = await startAuthEndpoint(sdk);
  wrongEndpoint = await startAuthEndpoint(nodeSdk(new App(app.id, app.key, 'not-the-secret')));
});
after(() => Promise.all([endpoint.stop(), wrongEndpoint.stop()]));

for (const release of releases) {
  const { version } = release;

  describe(`pusher-js ${version}`, () => {
    test(`S001 S002 S003 S004 pusher-js ${version} connects and learns its socket id`, async (t) => {
      const pusher = startClient(t, release);
      await reaches(pusher, 'connected');
      assert.match(pusher.connection.socket_id, /^\d+\.\d+$/);
      assert.deepEqual(pusher.tidewire.states.drain(), ['connected']);
      assert.equal(pusher.tidewire.errors.waiting, 0);
    });

    test(`S012 S019 pusher-js ${version} with an unknown key ends disconnected and is told 4001`, async (t) => {
      const pusher = startClient(t, release, { app: new App('0', 'no-such-key', 'x') });
      await errorWithCode(pusher, 4001);
      await reaches(pusher, 'disconnected');
      assert.ok(!pusher.connection.retryTimer, 'no retry is scheduled');
      assert.ok(!pusher.tidewire.states.drain().includes('connected'));
    });

    test(`S028 pusher-js ${version} pings when idle, is answered and stays connected`, async (t) => {
      const pusher = await connectClient(t, release, { activityTimeout: 200, pongTimeout: 5000 });
      const socketId = pusher.connection.socket_id;
      const frames = framesOf(pusher);
      for (let round = 0; round < 3; round += 1) {
        await frames.until(({ event }) => event === 'pusher:pong', 'a pong');
      }
      assert.equal(pusher.connection.socket_id, socketId);
      assert.equal(pusher.connection.state, 'connected');
    });

    test(`S043 S044 S130 S131 pusher-js ${version} receives what the SDK triggers on a public channel`, async (t) => {
      const pusher = await connectClient(t, release);
      const name = unique('news');
      const { events, first } = await join(pusher, name);
      assert.deepEqual(first, {});
      const payloads = [{ a: 1, nested: { list: [1, 'two', null] } }, 'a plain sentence', [1, 2], 'true'];
      for (const [index, payload] of payloads.entries()) await sdk.trigger(name, `event-${index}`, payload);
      const seen = await events.until((event) => event.name === 'event-3');
      assert.deepEqual(seen, [
        { name: 'event-0', data: payloads[0] },
        { name: 'event-1', data: 'a plain sentence' },
        { name: 'event-2', data: [1, 2] },
        { name: 'event-3', data: true },
      ]);
    });

    test(`S048 S050 pusher-js ${version} gets nothing after unsubscribe, and everything after it came back`, async (t) => {
      const pusher = await connectClient(t, release);
      const [name, other] = [unique('left'), unique('kept')];
      const left = await join(pusher, name);
      const frames = framesOf(pusher);
      pusher.unsubscribe(name);
      const kept = await join(pusher, other);
      await sdk.trigger(name, 'missed', {});
      await sdk.trigger(other, 'marker', {});
      await kept.events.until((event) => event.name === 'marker');
      assert.ok(!frames.drain().some(({ event }) => event === 'missed'));
      assert.equal(left.events.waiting, 0);
      const again = await join(pusher, name);
      await sdk.trigger(name, 'received', { n: 1 });
      assert.deepEqual(await again.events.next(), { name: 'received', data: { n: 1 } });
    });

    test(`S057 pusher-js ${version} joins a private channel through its auth endpoint`, async (t) => {
      const pusher = await connectClient(t, release, { endpoint });
      const name = unique('private-orders');
      const { events } = await join(pusher, name);
      const asked = endpoint.requests.findLast((request) => request.channel_name === name);
      assert.equal(asked.socket_id, pusher.connection.socket_id);
      await sdk.trigger(name, 'paid', { id: 7 });
      assert.deepEqual(await events.next(), { name: 'paid', data: { id: 7 } });
    });

    test(`S061 S067 pusher-js ${version} is told when its signature is wrong, and stays connected`, async (t) => {
      const pusher = await connectClient(t, release, { endpoint: wrongEndpoint });
      const name = unique('private-closed');
      const channel = pusher.subscribe(name);
      const events = eventsOf(channel);
      const { name: event, data } = await events.next();
      assert.equal(event, 'pusher:subscription_error');
      assert.equal(data.type, 'AuthError');
      assert.equal(data.status, 401);
      const error = await pusher.tidewire.errors.next();
      assert.equal(codeOf(error), null);
      assert.match((error.error ?? error).data.message, /^Invalid signature/);
      assert.equal(channel.subscribed, false);
      assert.equal(pusher.connection.state, 'connected');
    });

    test(`S069 S071 S073 pusher-js ${version} sees presence members come and go`, async (t) => {
      const name = unique('presence-lobby');
      const ada = await connectClient(t, release, { endpoint, params: { user_id: 'u-1', name: 'Ada' } });
      const here = await join(ada, name);
      assert.equal(here.channel.members.count, 1);
      assert.deepEqual(here.channel.members.me, { id: 'u-1', info: { name: 'Ada' } });

      const lin = await connectClient(t, release, { endpoint, params: { user_id: 'u-2', name: 'Lin' } });
      const there = await join(lin, name);
      assert.equal(there.channel.members.count, 2);
      assert.deepEqual(there.channel.members.get('u-1'), { id: 'u-1', info: { name: 'Ada' } });
      assert.deepEqual(await here.events.next(), { name: 'pusher:member_added', data: { id: 'u-2', info: { name: 'Lin' } } });
      assert.equal(here.channel.members.count, 2);

      lin.disconnect();
      assert.deepEqual(await here.events.next(), { name: 'pusher:member_removed', data: { id: 'u-2', info: { name: 'Lin' } } });
      assert.equal(here.channel.members.count, 1);
    });

    test(`S087 S088 S224 pusher-js ${version} exchanges client events on a private channel`, async (t) => {
      const name = unique('private-chat');
      const [one, two] = await Promise.all([
        connectClient(t, release, { endpoint }), connectClient(t, release, { endpoint }),
      ]);
      const [sender, receiver] = [await join(one, name), await join(two, name)];
      assert.equal(sender.channel.trigger('client-object', { x: 3 }), true);
      sender.channel.trigger('client-text', 'plain words');
      assert.deepEqual(await receiver.events.next(), { name: 'client-object', data: { x: 3 } });
      assert.deepEqual(await receiver.events.next(), { name: 'client-text', data: 'plain words' });
      await sdk.trigger(name, 'marker', {});
      assert.deepEqual((await sender.events.next()).name, 'marker', 'the sender hears nothing of its own');
    });

    test(`S089 pusher-js ${version} learns who sent a client event on a presence channel`, async (t) => {
      const name = unique('presence-chat');
      const one = await connectClient(t, release, { endpoint, params: { user_id: 'u-1' } });
      const two = await connectClient(t, release, { endpoint, params: { user_id: 'u-2' } });
      const [sender, receiver] = [await join(one, name), await join(two, name)];
      const senders = new Inbox('the senders');
      receiver.channel.bind('client-typing', (data, metadata) => senders.push({ data, metadata }));
      sender.channel.trigger('client-typing', { on: true });
      assert.deepEqual(await senders.next(), { data: { on: true }, metadata: { user_id: 'u-1' } });
    });

    test(`S025 pusher-js ${version} comes back by itself after the network broke`, async (t) => {
      const proxy = await startBreakableProxy(t);
      const pusher = await connectClient(t, release, { endpoint, address: proxy, params: { user_id: 'u-1' } });
      const names = [unique('public'), unique('private-a'), unique('presence-a')];
      const joined = [];
      for (const name of names) joined.push(await join(pusher, name));
      const before = pusher.connection.socket_id;

      proxy.cut();
      for (const { events } of joined) {
        assert.equal((await events.next('the resubscription')).name, 'pusher:subscription_succeeded');
      }
      assert.notEqual(pusher.connection.socket_id, before);
      assert.equal(joined[2].channel.members.count, 1);
      const asked = endpoint.requests.filter(({ socket_id: id }) => id === pusher.connection.socket_id);
      assert.deepEqual(asked.map((request) => request.channel_name).sort(), names.slice(1).sort());
      await sdk.trigger(names, 'again', { n: 1 });
      for (const { events } of joined) {
        const seen = await events.until(({ name }) => name === 'again');
        assert.deepEqual(seen.at(-1).data, { n: 1 });
      }
    });

    test(`S038 pusher-js ${version} survives being closed for a message that is too large`, async (t) => {
      const pusher = await connectClient(t, release, { endpoint });
      const before = pusher.connection.socket_id;
      const { channel, events } = await join(pusher, unique('private-large'));
      channel.trigger('client-large', 'x'.repeat(70_000));
      await errorWithCode(pusher, 1009);
      assert.equal((await events.next('the resubscription')).name, 'pusher:subscription_succeeded');
      assert.notEqual(pusher.connection.socket_id, before);
    });

    test(`S181 pusher-js ${version} stays down when its user was terminated, until it is told to connect`, async (t) => {
      const user = unique('user');
      const pusher = await connectClient(t, release, { endpoint, params: { user_id: user } });
      const frames = framesOf(pusher);
      signIn(pusher, release, user);
      await frames.until(({ event }) => event === 'pusher:signin_success', 'the sign-in');
      pusher.tidewire.states.drain();

      await sdk.terminateUserConnections(user);
      await errorWithCode(pusher, 4009);
      await reaches(pusher, 'disconnected');
      assert.ok(!pusher.connection.retryTimer, 'no retry is scheduled');
      assert.deepEqual(pusher.tidewire.states.drain(), ['disconnected']);
      pusher.connect();
      await reaches(pusher, 'connected');
    });
  });
}

/** Sign-in came with release 7; before that an application could only send the message itself. */
function signIn(pusher, { major }, id) {
  if (major >= 7) return pusher.signin();
  const userData = JSON.stringify({ id });
  const auth = app.userAuth(pusher.connection.socket_id, userData);
  return pusher.send_event('pusher:signin', { auth, user_data: userData });
}
