// Client events, frame by frame (specification 9.5).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertError, connect, connectMany } from '../lib/raw.js';
import { publish } from '../lib/rest.js';
import { namedApp, skipWithout } from '../lib/target.js';
import { eventually, unique } from '../lib/wait.js';

/** Two connections on one channel. */
async function pair(t, name, members = [undefined, undefined]) {
  const clients = await connectMany(t, 2);
  for (const [index, client] of clients.entries()) await client.join(name, members[index]);
  return clients;
}

test('S087 S089 a client event on a private channel reaches the others, without user_id', async (t) => {
  const name = unique('private-a');
  const [sender, receiver] = await pair(t, name);
  sender.send('client-x', { a: 1 }, { channel: name });
  assert.deepEqual(await receiver.next(), { event: 'client-x', channel: name, data: '{"a":1}' });
  await publish(name, 'marker', '');
  assert.equal((await sender.next()).event, 'marker');
});

test('S088 objects are delivered as their JSON text, strings as they are', async (t) => {
  const name = unique('private-a');
  const [sender, receiver] = await pair(t, name);
  const cases = [
    ['{"a":1}', '{"a":1}'], ['"plain"', 'plain'], ['"{\\"a\\":1}"', '{"a":1}'], ['[1,2]', '[1,2]'], ['7', '7'],
    ['true', 'true'], ['null', 'null'], ['""', ''], ['"\\u00e9 \\ud83d\\ude00 \\n \\u0000"', 'é 😀 \n \u0000'],
  ];
  for (const [sent, received] of cases) {
    sender.sendText(`{"event":"client-x","channel":"${name}","data":${sent}}`);
    assert.equal((await receiver.next(sent)).data, received);
  }
});

test('S089 S100 on a presence channel the sender is named, also to its own other connection', async (t) => {
  const name = unique('presence-a');
  const [sender, receiver] = await pair(t, name, [{ user_id: 'u-1' }, { user_id: 'u-1' }]);
  sender.send('client-x', '1', { channel: name });
  assert.deepEqual(await receiver.next(), { event: 'client-x', channel: name, data: '1', user_id: 'u-1' });
  await sender.quiet();
});

test('S090 forged members of the frame are not forwarded', async (t) => {
  const [privateName, presenceName] = [unique('private-a'), unique('presence-a')];
  const [sender, receiver] = await pair(t, presenceName, [{ user_id: 'u-1' }, { user_id: 'u-2' }]);
  await sender.until('pusher_internal:member_added');
  for (const client of [sender, receiver]) await client.join(privateName);
  for (const channel of [privateName, presenceName]) {
    sender.send('client-x', '1', { channel, user_id: 'admin', socket_id: '1.1', extra: true });
  }
  assert.deepEqual(await receiver.next(), { event: 'client-x', channel: privateName, data: '1' });
  assert.deepEqual(await receiver.next(), { event: 'client-x', channel: presenceName, data: '1', user_id: 'u-1' });
});

test('S091 S093 public, cache and encrypted channels carry no client events', async (t) => {
  for (const name of [unique('news'), unique('cache-a'), unique('private-encrypted-a'), unique('private-encrypted-cache-a')]) {
    const [sender, receiver] = await pair(t, name);
    if (name.includes('cache-')) for (const client of [sender, receiver]) await client.until('pusher:cache_miss');
    sender.send('client-x', {}, { channel: name });
    await sender.refused();
    await receiver.quiet();
  }
});

test('S092 a client event to a channel not joined is refused', async (t) => {
  const name = unique('private-a');
  const [outsider, member] = await connectMany(t, 2);
  await member.join(name);
  outsider.send('client-x', {}, { channel: name });
  await outsider.refused(null, /^Cannot broadcast client event/);
  await outsider.join(name);
  outsider.leave(name);
  outsider.send('client-x', {}, { channel: name });
  await outsider.refused(null, /^Cannot broadcast client event/);
  await member.quiet();
});

test('S094 an app without client events refuses them', { skip: skipWithout('quiet') }, async (t) => {
  const quiet = namedApp('quiet');
  const [one, two] = await connectMany(t, 2, { app: quiet });
  const name = unique('private-a');
  for (const client of [one, two]) await client.join(name);
  one.send('client-x', {}, { channel: name });
  await one.refused(null, /enable this feature/);
  await two.quiet();
});

test('S095 client events over ten a second are refused with 4301 until the sender slows down', async (t) => {
  const name = unique('private-a');
  const [sender, receiver] = await pair(t, name);
  const burst = 40;
  for (let n = 0; n < burst; n += 1) sender.send('client-x', n, { channel: name });
  const refusals = await refusedSoFar(sender);
  await eventually(async () => {
    sender.send('client-later', '', { channel: name });
    return (await refusedSoFar(sender)).length === 0;
  }, 'client events to flow again');
  const delivered = (await receiver.until('client-later')).slice(0, -1).map(({ data }) => Number(data));
  assert.deepEqual(delivered.slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal(delivered.length + refusals.length, burst, 'each event was either delivered or refused');
  assert.ok(refusals.length > 0);
});

/** The refusals of everything sent until now, all of them for the rate. */
async function refusedSoFar(client) {
  client.send('pusher:ping', {});
  const refusals = (await client.until('pusher:pong')).slice(0, -1);
  for (const frame of refusals) assertError(frame, 4301);
  return refusals;
}

test('S096 the limits of a client event are 200 characters of name and 10 240 bytes of data', async (t) => {
  const name = unique('private-a');
  const [sender, receiver] = await pair(t, name);
  const longest = `client-${'x'.repeat(193)}`;
  sender.send(longest, '', { channel: name });
  assert.equal((await receiver.next()).event, longest);
  sender.send(`${longest}x`, '', { channel: name });
  await sender.refused();
  for (const data of ['x'.repeat(10_240), '日'.repeat(3413) + 'x']) {
    sender.send('client-x', data, { channel: name });
    assert.equal((await receiver.next()).data, data);
    sender.send('client-x', `${data}x`, { channel: name });
    await sender.refused();
  }
  await receiver.quiet();
});

test('S097 a client event without a channel is refused', async (t) => {
  const client = await connect(t);
  for (const channel of [undefined, null, 5, {}]) {
    client.send('client-x', {}, { channel });
    await client.refused(null, /must contain channel/);
  }
});

test('S098 a client event without data is delivered with {}', async (t) => {
  const name = unique('private-a');
  const [sender, receiver] = await pair(t, name);
  sender.sendText(`{"event":"client-x","channel":"${name}"}`);
  assert.equal((await receiver.next()).data, '{}');
});

test('S099 only names that begin with client- are client events', async (t) => {
  const name = unique('presence-a');
  const [sender, receiver] = await pair(t, name, [{ user_id: 'u-1' }, { user_id: 'u-1' }]);
  for (const event of ['message', 'pusher_internal:member_added', 'pusher:x', 'Client-x', 'client', '']) {
    sender.send(event, { user_id: 'evil' }, { channel: name });
    await sender.refused();
  }
  await receiver.quiet();
});

test('S101 a client event on a presence cache channel is delivered but not cached', async (t) => {
  const name = unique('presence-cache-a');
  const [one, two, late] = await connectMany(t, 3);
  for (const client of [one, two]) {
    await client.join(name, { user_id: 'u-1' });
    await client.until('pusher:cache_miss');
  }
  one.send('client-x', '1', { channel: name });
  assert.equal((await two.next()).event, 'client-x');
  await late.join(name, { user_id: 'u-1' });
  assert.equal((await late.next()).event, 'pusher:cache_miss');
});
