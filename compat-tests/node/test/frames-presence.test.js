// Presence, frame by frame (specification 9.4).
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { connect, connectMany } from '../lib/raw.js';
import { api } from '../lib/rest.js';
import { app, namedApp, skipWithout } from '../lib/target.js';
import { unique } from '../lib/wait.js';

const presenceOf = (frame) => JSON.parse(frame.data).presence;
const added = (channel, member) => ({ event: 'pusher_internal:member_added', channel, data: member });
const removed = (channel, id) => ({ event: 'pusher_internal:member_removed', channel, data: { user_id: id } });
const decoded = (frame) => {
  assert.equal(typeof frame.data, 'string');
  return { ...frame, data: JSON.parse(frame.data) };
};

test('S069 S070 the first member is told of itself', async (t) => {
  const client = await connect(t);
  const frame = await client.join(unique('presence-a'), { user_id: 'u-1', user_info: { name: 'Ada' } });
  assert.deepEqual(presenceOf(frame), { count: 1, ids: ['u-1'], hash: { 'u-1': { name: 'Ada' } } });
});

test('S071 a second user is announced to the first, not to itself', async (t) => {
  const [one, two] = await connectMany(t, 2);
  const name = unique('presence-a');
  await one.join(name, { user_id: 'u-1' });
  const { count, ids, hash } = presenceOf(await two.join(name, { user_id: 'u-2', user_info: { name: 'Lin' } }));
  assert.deepEqual([count, ids.sort(), Object.keys(hash).sort()], [2, ['u-1', 'u-2'], ['u-1', 'u-2']]);
  assert.deepEqual(decoded(await one.next()), added(name, { user_id: 'u-2', user_info: { name: 'Lin' } }));
  await two.quiet();
});

test('S072 S073 connections of one user are one member, from the first to the last', async (t) => {
  const [watcher, one, two] = await connectMany(t, 3);
  const name = unique('presence-a');
  await watcher.join(name, { user_id: 'watcher' });
  await one.join(name, { user_id: 'u-1', user_info: {} });
  assert.deepEqual(decoded(await watcher.next()), added(name, { user_id: 'u-1', user_info: {} }));
  assert.equal(presenceOf(await two.join(name, { user_id: 'u-1', user_info: {} })).count, 2);
  one.leave(name);
  await one.quiet();
  await watcher.quiet();
  two.leave(name);
  assert.deepEqual(decoded(await watcher.next()), removed(name, 'u-1'));
  await watcher.quiet();
});

test('S074 a member whose network broke is removed', async (t) => {
  const [watcher, lost] = await connectMany(t, 2);
  const name = unique('presence-a');
  await watcher.join(name, { user_id: 'watcher' });
  await lost.join(name, { user_id: 'u-1' });
  await watcher.next();
  lost.ws._socket.resetAndDestroy();
  assert.deepEqual(decoded(await watcher.next()), removed(name, 'u-1'));
});

test('S076 a numeric user id is a string, and the same member', async (t) => {
  const [one, two, three] = await connectMany(t, 3);
  const name = unique('presence-a');
  const { ids, hash } = presenceOf(await one.join(name, '{"user_id":7,"user_info":{"n":1}}'));
  assert.deepEqual([ids, hash], [['7'], { 7: { n: 1 } }]);
  assert.equal(presenceOf(await two.join(name, { user_id: '7' })).count, 1);
  await three.join(name, { user_id: 'x' });
  two.leave(name);
  three.leave(name);
  assert.deepEqual(decoded(await one.next()), added(name, { user_id: 'x', user_info: null }));
  assert.deepEqual(decoded(await one.next()), removed(name, 'x'));
});

test('S077 a member without user_info has null', async (t) => {
  const client = await connect(t);
  assert.deepEqual(presenceOf(await client.join(unique('presence-a'), { user_id: 'u-1' })).hash, { 'u-1': null });
});

for (const data of ['not json', '{}', '{"user_id":""}', '{"user_id":null}', '{"user_id":{}}', '[]', '"x"', '5', 'null']) {
  test(`S078 the channel_data ${data} is refused`, async (t) => {
    const client = await connect(t);
    const name = unique('presence-a');
    client.subscribe(client.ticket(name, data));
    await client.refused();
    await client.quiet();
    assert.deepEqual((await api('GET', `/channels/${name}`)).json, { occupied: false });
  });
}

test('S079 a signature over re-ordered JSON is refused: the bytes matter', async (t) => {
  const client = await connect(t);
  const name = unique('presence-a');
  const auth = app.channelAuth(client.socketId, name, '{"user_info":{},"user_id":"u-1"}');
  client.subscribe({ channel: name, auth, channel_data: '{"user_id":"u-1","user_info":{}}' });
  await client.refused(null, /^Invalid signature/);
});

test('S080 the limits of user_id and user_info are 128 characters and 1024 bytes', async (t) => {
  const client = await connect(t);
  const info = (bytes) => ({ x: 'y'.repeat(bytes - '{"x":""}'.length) });
  await client.join(unique('presence-a'), { user_id: 'u'.repeat(128) });
  await client.join(unique('presence-b'), { user_id: 'u', user_info: info(1024) });
  client.subscribe(client.ticket(unique('presence-c'), { user_id: 'u'.repeat(129) }));
  await client.refused();
  client.subscribe(client.ticket(unique('presence-d'), { user_id: 'u', user_info: info(1025) }));
  await client.refused();
});

describe('a full presence channel', () => {
  test('S081 S082 S070 takes further connections of its members, but no 101st user', async (t) => {
    const name = unique('presence-full');
    const clients = await connectMany(t, 102);
    const members = clients.slice(0, 100);
    for (const [n, client] of members.entries()) await client.join(name, { user_id: `u-${n}` });
    const [late, again] = clients.slice(100);
    late.subscribe(late.ticket(name, { user_id: 'u-late' }));
    await late.refused(null, /100/);
    const { count, ids, hash } = presenceOf(await again.join(name, { user_id: 'u-7' }));
    assert.deepEqual([count, ids.length, Object.keys(hash).length], [100, 100, 100]);
    const announced = [];
    for (let n = 1; n < 100; n += 1) announced.push(JSON.parse((await members[0].next()).data).user_id);
    assert.deepEqual(announced.sort(), Array.from({ length: 99 }, (_, n) => `u-${n + 1}`).sort());
    await members[0].quiet();
  });
});

test('S083 a user who joins again with other user_info replaces it silently', async (t) => {
  const [one, two, three] = await connectMany(t, 3);
  const name = unique('presence-a');
  await one.join(name, { user_id: 'u-1', user_info: { v: 1 } });
  assert.deepEqual(presenceOf(await two.join(name, { user_id: 'u-1', user_info: { v: 2 } })).hash, { 'u-1': { v: 2 } });
  await one.quiet();
  assert.deepEqual(presenceOf(await three.join(name, { user_id: 'u-2' })).hash['u-1'], { v: 2 });
});

test('S085 a signed-in connection joins presence as its user, any other is refused', async (t) => {
  const [signedIn, anonymous] = await connectMany(t, 2);
  const [name, user] = [unique('presence-a'), unique('user')];
  await signedIn.signIn({ id: user, user_info: { name: 'Ada' } });
  assert.deepEqual(presenceOf(await signedIn.join(name)), { count: 1, ids: [user], hash: { [user]: { name: 'Ada' } } });
  anonymous.subscribe(anonymous.ticket(name));
  await anonymous.refused();
});

test('S086 user_info that is no object is accepted by default', async (t) => {
  const client = await connect(t);
  const frame = await client.join(unique('presence-a'), { user_id: 'u-1', user_info: true });
  assert.deepEqual(presenceOf(frame).hash, { 'u-1': true });
});

test('S086 user_info that is no object is refused in strict mode', { skip: skipWithout('strict') }, async (t) => {
  const client = await connect(t, { app: namedApp('strict') });
  client.subscribe(client.ticket(unique('presence-a'), { user_id: 'u-1', user_info: true }));
  await client.refused(null, /must be a type of hash/);
  await client.join(unique('presence-a'), { user_id: 'u-1', user_info: {} });
});
