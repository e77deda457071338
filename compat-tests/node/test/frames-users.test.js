// Sign-in, user channels and watch-lists, frame by frame (specification 9.7).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertError, connect, connectMany } from '../lib/raw.js';
import { api, publish } from '../lib/rest.js';
import { app, App, namedApp, skipWithout } from '../lib/target.js';
import { unique } from '../lib/wait.js';

const changes = (frame) => {
  assert.equal(frame.event, 'pusher_internal:watchlist_events');
  assert.equal(frame.channel, undefined);
  return JSON.parse(frame.data).events.map(({ name, user_ids: ids }) => [name, ...ids.sort()]).sort();
};

test('S116 a sign-in is answered with the user data, byte for byte', async (t) => {
  const client = await connect(t);
  const userData = `{ "user_info":{"n":1.0, "e":"\\u00e9"},"id":"${unique('user')}" , "free":[1] }`;
  const { data } = await client.signIn(userData);
  assert.equal(typeof data, 'string');
  assert.deepEqual(JSON.parse(data), { user_data: userData });
});

test('S117 a sign-in with a wrong signature is refused, and its user channel too', async (t) => {
  const client = await connect(t);
  const user = unique('user');
  const userData = JSON.stringify({ id: user });
  const wrong = [
    new App(app.id, app.key, 'other').userAuth(client.socketId, userData),
    app.channelAuth(client.socketId, 'user', userData),
    app.userAuth('1.1', userData),
    `nokey:${app.hmac(`${client.socketId}::user::${userData}`)}`,
    'nocolon',
  ];
  for (const auth of wrong) {
    client.send('pusher:signin', { auth, user_data: userData });
    await client.refused();
  }
  client.subscribe({ channel: `#server-to-user-${user}` });
  await client.refused();
  await client.signIn(userData);
});

for (const userData of ['not json', '{}', '{"id":""}', '{"id":7}', '{"id":null}', '[]', '"u-1"', 'null']) {
  test(`S118 the user data ${userData} is refused`, async (t) => {
    const client = await connect(t);
    client.send('pusher:signin', { auth: app.userAuth(client.socketId, userData), user_data: userData });
    await client.refused();
    await client.quiet();
  });
}

test('S119 a sign-in without user_data or auth is refused', async (t) => {
  const client = await connect(t);
  for (const data of [{}, { auth: 'x:y' }, { user_data: '{"id":"u-1"}' }, undefined, { auth: null, user_data: null }]) {
    client.send('pusher:signin', data);
    await client.refused(null, /Missing parameter/);
  }
});

test('S120 S121 a user joins its own channel and nobody else\'s', async (t) => {
  const [client, anonymous] = await connectMany(t, 2);
  const user = unique('user');
  const own = `#server-to-user-${user}`;
  await client.signIn({ id: user });
  client.subscribe({ auth: '', channel: own });
  assert.deepEqual(await client.next(), { event: 'pusher_internal:subscription_succeeded', channel: own, data: '{}' });
  client.subscribe({ auth: '', channel: `${own}2` });
  await client.refused();
  anonymous.subscribe({ auth: '', channel: own });
  await anonymous.refused();
});

test('S122 what is published to a user reaches all its connections, by that name', async (t) => {
  const clients = await connectMany(t, 3);
  const user = unique('user');
  const own = `#server-to-user-${user}`;
  for (const client of clients.slice(0, 2)) {
    await client.signIn({ id: user });
    await client.join(own);
  }
  await clients[2].signIn({ id: unique('user') });
  await publish(own, 'notice', 'hello');
  for (const client of clients.slice(0, 2)) {
    assert.deepEqual(await client.next(), { event: 'notice', channel: own, data: 'hello' });
  }
  await clients[2].quiet();
  const { channels } = (await api('GET', '/channels')).json;
  assert.deepEqual(Object.keys(channels).filter((name) => name.startsWith('#')), [], 'user channels are never listed');
});

test('S123 signing in again is fine as the same user and refused as another', async (t) => {
  const client = await connect(t);
  const [user, other] = [unique('user'), unique('user')];
  await client.signIn({ id: user });
  await client.signIn({ id: user, user_info: { v: 2 } });
  const userData = JSON.stringify({ id: other });
  client.send('pusher:signin', { auth: app.userAuth(client.socketId, userData), user_data: userData });
  await client.refused();
  await client.join(`#server-to-user-${user}`);
  client.subscribe({ channel: `#server-to-user-${other}` });
  await client.refused();
});

test('S124 S125 a watch-list tells the state at sign-in and then every change once', async (t) => {
  const [watcher, one, two, away] = await connectMany(t, 4);
  const [here, gone] = [unique('here'), unique('gone')];
  await one.signIn({ id: here });
  await watcher.signIn({ id: unique('watcher'), watchlist: [here, gone] });
  assert.deepEqual(changes(await watcher.next()), [['offline', gone], ['online', here]]);
  await two.signIn({ id: here });
  await away.signIn({ id: gone });
  assert.deepEqual(changes(await watcher.next()), [['online', gone]]);
  await one.end();
  await away.end();
  assert.deepEqual(changes(await watcher.next()), [['offline', gone]]);
  await two.end();
  assert.deepEqual(changes(await watcher.next()), [['offline', here]]);
  await watcher.quiet();
});

test('S126 of a watch-list of 101 users the first 100 are watched, and the client is told', async (t) => {
  const [watcher, last, first] = await connectMany(t, 3);
  const list = Array.from({ length: 101 }, () => unique('user'));
  await watcher.signIn({ id: unique('watcher'), watchlist: list });
  const frames = [await watcher.next(), await watcher.next()];
  const error = frames.find(({ event }) => event === 'pusher:error');
  assertError(error, 4302);
  const [[name, ...offline]] = changes(frames.find((frame) => frame !== error));
  assert.deepEqual([name, offline.length, offline.includes(list[100])], ['offline', 100, false]);
  await last.signIn({ id: list[100] });
  await first.signIn({ id: list[0] });
  assert.deepEqual(changes(await watcher.next()), [['online', list[0]]]);
});

test('S127 an app without watch-lists sends none', { skip: skipWithout('quiet') }, async (t) => {
  const [watcher, other] = await connectMany(t, 2, { app: namedApp('quiet') });
  const user = unique('user');
  await watcher.signIn({ id: unique('watcher'), watchlist: [user] });
  await other.signIn({ id: user });
  await watcher.quiet();
});

test('S128 a connection that never proves who it is is closed with 4009; proven ones stay', {
  skip: skipWithout('authorized'),
}, async (t) => {
  const [stranger, publicOnly, member, user] = await connectMany(t, 4, { app: namedApp('authorized') });
  await publicOnly.join(unique('news'));
  await member.join(unique('private-a'));
  await user.signIn({ id: unique('user') });
  for (const client of [stranger, publicOnly]) {
    await client.refused(4009, /not authorized within timeout/);
    assert.equal((await client.closing()).code, 4009);
  }
  await Promise.all([member.quiet(), user.quiet()]);
});

test('S181 S182 termination closes the connections of a user, by error frame and code 4009', async (t) => {
  const [one, two, other, member] = await connectMany(t, 4);
  const user = unique('user');
  for (const client of [one, two]) await client.signIn({ id: user });
  await other.signIn({ id: unique('user') });
  await member.join(unique('presence-a'), { user_id: user });
  const terminate = () => api('POST', `/users/${user}/terminate_connections`, { body: '{}' });
  const reply = await terminate();
  assert.deepEqual([reply.status, reply.json], [200, {}]);
  for (const client of [one, two]) {
    await client.refused(4009);
    assert.equal((await client.closing()).code, 4009);
  }
  assert.equal((await terminate()).status, 200);
  await Promise.all([other.quiet(), member.quiet()]);
});
