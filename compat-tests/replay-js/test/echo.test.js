// Laravel Echo, 2 and 1, with both broadcasters and both ways to hand it a Pusher.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import Echo2 from 'laravel-echo';
import { attachReplay, withReplay } from 'tidewire-replay';
import { eventually, Inbox, unique } from '../../node/lib/wait.js';
import { address, lost, Pusher, take, tidy } from '../lib/client.js';
import { sdkOf, startEndpoint } from '../lib/sdk.js';
import { Shared, skip, startServer, stored } from '../lib/server.js';

const require = createRequire(import.meta.url);

const echoes = [
  { Echo: Echo2, version: require('../node_modules/laravel-echo/package.json').version },
  { Echo: require('laravel-echo-1').default, version: require('laravel-echo-1/package.json').version },
];

let server;
let endpoint;
let sdk;

/** What Laravel's generated `echo.js` writes, with the plugin in one of its two options. */
function startEcho(t, { Echo, broadcaster, option }, door) {
  const { cluster, ...where } = address(door);
  const user = unique('user');
  const options = {
    broadcaster,
    key: stored.key,
    ...where,
    ...(broadcaster === 'pusher' ? { cluster: 'mt1' } : {}),
    authEndpoint: endpoint.channelUrl,
    auth: { headers: {}, params: { user_id: user, name: `Name of ${user}` } },
  };
  const client = option === 'client'
    ? { client: attachReplay(new Pusher(stored.key, { cluster: 'mt1', ...options })) }
    : { Pusher: withReplay(Pusher) };
  const echo = new Echo({ ...options, ...client });
  tidy(t, echo.connector.pusher);
  return echo;
}

describe('Echo', { skip, concurrency: true }, () => {
  const shared = new Shared();
  before(async () => {
    server = await startServer(shared);
    endpoint = await startEndpoint(shared, server);
    sdk = sdkOf(server);
  });
  after(() => shared.end());

  for (const { Echo, version } of echoes) {
    for (const broadcaster of ['pusher', 'reverb']) {
      for (const option of ['Pusher', 'client']) {
        test(`${version} (${broadcaster}, ${option}) misses nothing`, async (t) => {
          const door = await server.door(t);
          const echo = startEcho(t, { Echo, broadcaster, option }, door);
          const [orders, room] = [unique('orders'), unique('room')];
          const heard = new Inbox('what Echo heard');
          const succeeded = new Inbox('subscriptions');
          const channel = echo.private(orders).listen('OrderPaid', ({ n }) => heard.push(n))
            .listen('.tidewire:recovered', (data) => heard.push(['recovered', data]))
            .subscribed(() => succeeded.push('orders'));
          const members = new Inbox('members');
          const talk = new Inbox('the room');
          echo.join(room).here((here) => members.push(here)).listen('.said', ({ n }) => talk.push(n));
          await Promise.all([succeeded.next(), members.next()]);

          const paid = (n, more) => sdk.trigger(`private-${orders}`, 'App\\Events\\OrderPaid', { n }, more);
          await paid(1);
          assert.deepEqual(await take(heard, 1), [1]);
          const gone = lost(echo.connector.pusher);
          const socketId = echo.socketId();
          door.slam();
          await gone;
          await paid(2);
          await paid(3, { socket_id: socketId });
          await paid(4);
          await sdk.trigger(`presence-${room}`, 'said', { n: 1 });
          door.open();
          assert.deepEqual(await take(heard, 2), [2, 4]);
          assert.equal((await heard.next())[0], 'recovered');
          assert.deepEqual(await take(talk, 1), [1]);
          await paid(5);
          assert.deepEqual(await take(heard, 1), [5]);
          assert.match(channel.subscription.position, /:5$/);
          assert.equal((await members.next()).length, 1);
          await eventually(() => echo.socketId() !== socketId, 'a new socket id');
        });
      }
    }
  }
});
