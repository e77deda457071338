// Laravel Echo, 2 and 1, with both broadcasters that speak this protocol.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import Echo2 from 'laravel-echo';
import { startAuthEndpoint } from '../lib/auth-endpoint.js';
import { addressOptions, releases } from '../lib/pusher-js.js';
import { nodeSdk } from '../lib/sdk.js';
import { app, App } from '../lib/target.js';
import { eventually, Inbox, unique } from '../lib/wait.js';

const require = createRequire(import.meta.url);
const { Pusher } = releases[0];

const echoes = [
  { Echo: Echo2, version: require('../node_modules/laravel-echo/package.json').version },
  { Echo: require('laravel-echo-1').default, version: require('laravel-echo-1/package.json').version },
];

const sdk = nodeSdk();
let endpoint;
before(async () => { endpoint = await startAuthEndpoint(sdk); });
after(() => endpoint.stop());

/** What Laravel's generated `echo.js` writes, with the auth endpoint of this suite. */
function startEcho(t, { Echo, broadcaster }, { user = unique('user'), deny, key = app.key } = {}) {
  const { cluster, ...address } = addressOptions();
  const params = { user_id: user, name: `Name of ${user}`, ...(deny ? { deny: '1' } : {}) };
  const echo = new Echo({
    broadcaster,
    key,
    Pusher,
    ...address,
    ...(broadcaster === 'pusher' ? { cluster: 'mt1' } : {}),
    authEndpoint: endpoint.channelUrl,
    auth: { headers: { 'x-test': 'echo' }, params },
    userAuthentication: { endpoint: endpoint.userUrl, headers: {}, params },
    bearerToken: 'the-token',
  });
  t.after(() => echo.disconnect());
  return echo;
}

function subscribed(channel, what) {
  const inbox = new Inbox(what ?? 'the subscription');
  channel.subscribed(() => inbox.push(true));
  return inbox.next();
}

/** What a callback of Echo is called with: the data. */
function heard(bind) {
  const inbox = new Inbox('what Echo heard');
  bind((data) => inbox.push(data));
  return inbox;
}

/** What the callback of `listenToAll` is called with: name and data. */
function heardAll(channel) {
  const inbox = new Inbox(`all of ${channel.name}`);
  channel.listenToAll((name, data) => inbox.push([name, data]));
  return inbox;
}

for (const { Echo, version } of echoes) {
  for (const broadcaster of ['pusher', 'reverb']) {
    const kind = { Echo, broadcaster };
    const named = `Echo ${version} (${broadcaster})`;

    describe(named, () => {
      test(`S225 ${named} connects and tells its socket id`, async (t) => {
        const echo = startEcho(t, kind);
        assert.match(await eventually(() => echo.socketId(), 'the socket id'), /^\d+\.\d+$/);
      });

      test(`S162 S221 ${named} listens to Laravel event classes and to literal names`, async (t) => {
        const echo = startEcho(t, kind);
        const name = unique('orders');
        const channel = echo.channel(name);
        const byClass = heard((hear) => channel.listen('OrderPaid', hear));
        const literal = heard((hear) => channel.listen('.order.paid', hear));
        const all = heardAll(channel);
        await subscribed(channel);
        await sdk.trigger(name, 'App\\Events\\OrderPaid', { id: 1 });
        await sdk.trigger(name, 'order.paid', { id: 2 });
        assert.deepEqual(await byClass.next(), { id: 1 });
        assert.deepEqual(await literal.next(), { id: 2 });
        assert.deepEqual([await all.next(), await all.next()], [['OrderPaid', { id: 1 }], ['.order.paid', { id: 2 }]]);
      });

      test(`S057 ${named} listens and is notified on a private channel`, async (t) => {
        const echo = startEcho(t, kind);
        const name = unique('App.Models.User.7');
        const channel = echo.private(name);
        const paid = heard((hear) => channel.listen('OrderPaid', hear));
        const notices = heard((hear) => channel.notification(hear));
        await subscribed(channel);
        const asked = endpoint.requests.findLast((request) => request.channel_name === `private-${name}`);
        assert.equal(asked.headers.authorization, 'Bearer the-token');
        await sdk.trigger(`private-${name}`, 'App\\Events\\OrderPaid', { id: 1 });
        await sdk.trigger(`private-${name}`, 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', {
          id: 'n-1', type: 'App\\Notifications\\InvoicePaid',
        });
        assert.deepEqual(await paid.next(), { id: 1 });
        assert.deepEqual(await notices.next(), { id: 'n-1', type: 'App\\Notifications\\InvoicePaid' });
      });

      test(`S110 S111 ${named} decrypts an encrypted private channel`, async (t) => {
        const echo = startEcho(t, kind);
        const name = unique('vault');
        const channel = echo.encryptedPrivate(name);
        const opened = heard((hear) => channel.listen('.opened', hear));
        await subscribed(channel);
        await sdk.trigger(`private-encrypted-${name}`, 'opened', { code: 1234 });
        assert.deepEqual(await opened.next(), { code: 1234 });
      });

      test(`S223 ${named} knows who is here, joining and leaving`, async (t) => {
        const name = unique('room');
        const ada = startEcho(t, kind, { user: 'u-ada' });
        const room = ada.join(name);
        const here = heard((hear) => room.here(hear));
        const joining = heard((hear) => room.joining(hear));
        const leaving = heard((hear) => room.leaving(hear));
        assert.deepEqual(await here.next(), [{ name: 'Name of u-ada' }]);

        const lin = startEcho(t, kind, { user: 'u-lin' });
        const linHere = heard((hear) => lin.join(name).here(hear));
        const names = (await linHere.next()).map((member) => member.name).sort();
        assert.deepEqual(names, ['Name of u-ada', 'Name of u-lin']);
        assert.deepEqual(await joining.next(), { name: 'Name of u-lin' });
        lin.leave(name);
        assert.deepEqual(await leaving.next(), { name: 'Name of u-lin' });
      });

      test(`S224 S087 S098 ${named} whispers to the others only`, async (t) => {
        const name = unique('typing');
        const [one, two] = [startEcho(t, kind), startEcho(t, kind)];
        const [mine, theirs] = [one.private(name), two.private(name)];
        const echoed = heardAll(mine);
        const whispers = heard((hear) => theirs.listenForWhisper('typing', hear));
        await Promise.all([subscribed(mine), subscribed(theirs)]);
        mine.whisper('typing', { name: 'Ada' });
        mine.whisper('typing', {});
        mine.whisper('typing');
        assert.deepEqual(await whispers.next(), { name: 'Ada' });
        assert.deepEqual(await whispers.next(), {});
        assert.deepEqual(await whispers.next(), {});
        await sdk.trigger(`private-${name}`, 'marker', {});
        assert.deepEqual(await echoed.next(), ['.marker', {}]);
      });

      test(`S222 ${named} is left out of what its own request broadcast`, async (t) => {
        const name = unique('others');
        const [one, two] = [startEcho(t, kind), startEcho(t, kind)];
        const inboxes = [one, two].map((echo) => heardAll(echo.channel(name)));
        await Promise.all([one, two].map((echo) => subscribed(echo.channel(name))));
        await sdk.trigger(name, 'posted', { id: 1 }, { socket_id: one.socketId() });
        await sdk.trigger(name, 'marker', {});
        assert.deepEqual(await inboxes[0].next(), ['.marker', {}]);
        assert.deepEqual(await inboxes[1].next(), ['.posted', { id: 1 }]);
      });

      test(`S048 ${named} leaves all channels of a name`, async (t) => {
        const name = unique('gone');
        const echo = startEcho(t, kind);
        const channels = [echo.channel(name), echo.private(name), echo.join(name)];
        const inboxes = channels.map((channel) => heardAll(channel));
        await Promise.all(channels.map((channel) => subscribed(channel)));
        echo.leave(name);
        const rest = echo.channel(unique('rest'));
        const marker = heard((hear) => rest.listen('.marker', hear));
        await subscribed(rest);
        await sdk.trigger([name, `private-${name}`, `presence-${name}`], 'missed', {});
        await sdk.trigger(rest.name, 'marker', {});
        await marker.next();
        for (const inbox of inboxes) assert.equal(inbox.waiting, 0);
        const { channels: occupied } = await (await sdk.get({
          path: '/channels', params: { filter_by_prefix: `presence-${name}` },
        })).json();
        assert.deepEqual(occupied, {});
      });

      test(`S067 ${named} hears of a refusal by its own endpoint and of one by the server`, async (t) => {
        const denied = startEcho(t, kind, { deny: true });
        const refused = heard((hear) => denied.private(unique('closed')).error(hear));
        assert.equal((await refused.next()).status, 403);

        const lying = await startAuthEndpoint(nodeSdk(new App(app.id, app.key, 'another-secret')));
        t.after(() => lying.stop());
        const { channelUrl } = endpoint;
        endpoint.channelUrl = lying.channelUrl;
        const echo = startEcho(t, kind);
        endpoint.channelUrl = channelUrl;
        const rejected = heard((hear) => echo.private(unique('closed')).error(hear));
        const { type, status } = await rejected.next();
        assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
      });
    });
  }
}
