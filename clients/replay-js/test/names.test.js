// The names of pusher-js this package touches, which no release promises to keep: most are private, and a minifier
// could take them away.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address, follow, start, tidy } from './lib/client.js';
import { releases } from './lib/releases.js';
import { startServer } from './lib/scripted-server.js';

/** Path from the instance, type, and what is lost without it. */
const NAMES = [
  ['key', 'string', 'to keep positions of apps apart'],
  ['send_event', 'function', 'to add `replay` to pusher:subscribe'],
  ['subscribe', 'function', 'to give a channel its `position`'],
  ['unsubscribe', 'function', 'to forget a position'],
  ['channel', 'function', 'to tell a channel of tidewire:resync'],
  ['allChannels', 'function', 'to know channels that were there before'],
  ['connection.bind', 'function', 'to hear of a new connection'],
  ['connection.state', 'string', 'to know whether it is connected'],
  ['connection.socket_id', 'string', 'to send `not_from`'],
  ['connection.connection.transport.emit', 'function', 'to see frames before they are decoded'],
];

const CHANNEL_NAMES = [
  ['name', 'string', 'to find its position'],
  ['subscribed', 'boolean', 'to know whether it is subscribed'],
  ['subscriptionPending', 'boolean', 'to subscribe again after a refusal'],
  ['subscribe', 'function', 'to subscribe again after a refusal'],
  ['emit', 'function', 'to tell of tidewire:recovered and tidewire:resync'],
];

function assertNames(release, object, what, names) {
  for (const [path, type, purpose] of names) {
    const found = path.split('.').reduce((value, name) => value?.[name], object);
    assert.equal(typeof found, type, `${release.name} has no ${what}.${path} any more; tidewire-replay needs it ${purpose}`);
  }
}

for (const release of releases) {
  test(`${release.name} has the names that are touched`, async (t) => {
    const server = await startServer(t);
    const Pusher = release.load();
    const pusher = tidy(t, new Pusher('key', address(server)));
    const channel = pusher.subscribe('orders');
    const connection = await server.connection();
    await connection.accept('orders');
    assertNames(release, pusher, 'pusher', NAMES);
    assertNames(release, channel, 'channel', CHANNEL_NAMES);
    assert.ok('serverToUserChannel' in pusher.user, `${release.name} has no pusher.user.serverToUserChannel any more`);
    assert.equal(pusher.allChannels()[0], channel);
  });

  test(`${release.name} goes through the names that are touched`, async (t) => {
    const server = await startServer(t);
    const pusher = start(t, server, { release });
    const events = follow(pusher, 'orders');
    let connection = await server.connection();
    assert.deepEqual(
      await connection.accept('orders', { epoch: 'log.1', serial: 4 }), { v: 1 },
      `${release.name} does not subscribe through pusher.send_event any more`,
    );
    connection.messages('orders', 5, 6);
    connection.message('orders', 6);
    connection.message('orders', 7);
    assert.equal(await events.next(), 'pusher:subscription_succeeded');
    assert.deepEqual(
      await events.take(3), [5, 6, 7],
      `${release.name} does not hear messages through connection.connection.transport.emit any more`,
    );
    assert.equal(pusher.channel('orders').position, 'log.1:7');

    connection.drop();
    connection = await server.connection();
    const asked = await connection.accept('orders', { epoch: 'log.1', serial: 8, recovered: true, count: 1 });
    assert.deepEqual(asked, { v: 1, from: 'log.1:7', not_from: '7.1' });
    connection.message('orders', 8);
    connection.done('orders', 8);
    assert.deepEqual(
      await events.take(3), ['pusher:subscription_succeeded', 8, ['tidewire:recovered', { count: 1 }]],
    );
  });
}
