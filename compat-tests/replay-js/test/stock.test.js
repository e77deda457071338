// Whoever did not ask sees nothing of replay: byte for byte the frames of a channel that is not stored.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Inbox, unique } from '../../node/lib/wait.js';
import { Pusher, SUCCEEDED, heard, start, take } from '../lib/client.js';
import { publish, startEndpoint } from '../lib/sdk.js';
import { plain, Shared, skip, startServer, stored } from '../lib/server.js';

let server;
let endpoints;

/** Bare text frames of a connection, as they came; `send` takes what a stock client would send. */
async function open(t, app) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/app/${app.key}?protocol=7&client=js&version=8.6.0`);
  t.after(() => socket.terminate());
  const texts = new Inbox(`the frames of ${app.key}`);
  socket.on('message', (bytes, isBinary) => texts.push(isBinary ? 'binary' : bytes.toString('utf8')));
  const { data } = JSON.parse(await texts.next());
  const socketId = JSON.parse(data).socket_id;
  const send = (event, payload, channel) => socket.send(JSON.stringify({ event, data: payload, channel }));
  const subscribe = (channel, member) => {
    const channelData = member && JSON.stringify(member);
    const auth = /^(private|presence)-/.test(channel) ? app.channelAuth(socketId, channel, channelData) : '';
    send('pusher:subscribe', { channel, auth, channel_data: channelData });
  };
  return { texts, socketId, send, subscribe };
}

const AWKWARD = ['plain', '{"n":1}', '"quoted"', '', ' spaces ', '{"text":"ümläut \\ud83d\\ude00 \\" \\\\ / \\u0000 </script>"}', '[1,2]', 'null'];

/** One life of an app with everything a stock client meets; resolves to all frames from the first subscription on. */
async function life(t, app, names) {
  const one = await open(t, app);
  const two = await open(t, app);
  const trigger = (channels, name, data, more = {}) =>
    server.api('POST', '/events', { app, body: { name, data, channels: [].concat(channels), ...more } });
  const sync = async (client) => {
    client.send('pusher:ping', {});
    return client.texts.until((text) => text.startsWith('{"event":"pusher:pong"'));
  };
  const frames = [];
  await trigger(names.cache, 'state', 'before');
  one.subscribe(names.news);
  one.subscribe(names.private);
  one.subscribe(names.presence, { user_id: 'u-1', user_info: { name: 'Ada' } });
  one.subscribe(names.encrypted);
  one.subscribe(names.cache);
  one.subscribe(names.emptyCache);
  frames.push(...await sync(one));
  for (const data of AWKWARD) await trigger([names.news, names.private, names.presence, names.cache], 'thing', data);
  await trigger(names.news, 'keyed', '1', { idempotency_key: unique('key') });
  await trigger(names.news, 'excluded', '1', { socket_id: one.socketId });
  await trigger(names.encrypted, 'thing', '{"nonce":"bm9uY2U=","ciphertext":"dGV4dA=="}');
  await server.api('POST', '/batch_events', { app, body: { batch: [{ channel: names.news, name: 'batched', data: '1' }] } });
  frames.push(...await sync(one));
  two.subscribe(names.presence, { user_id: 'u-2', user_info: { name: 'Lin' } });
  two.subscribe(names.private);
  await sync(two);
  two.send('client-typing', { on: true }, names.presence);
  two.send('client-typing', 'text', names.private);
  await sync(two);
  two.send('pusher:unsubscribe', { channel: names.presence });
  await sync(two);
  frames.push(...await sync(one));
  // Again, and with what a stock client never sends: a name of nothing.
  one.send('pusher:unsubscribe', { channel: names.news });
  one.subscribe(names.news);
  one.subscribe(names.news);
  await sync(one).then((more) => frames.push(...more));
  await trigger(names.news, 'thing', 'last');
  frames.push(...await sync(one));
  return frames;
}

/** Only within a channel is there an order. */
function byChannel(texts) {
  const groups = {};
  for (const text of texts) (groups[JSON.parse(text).channel ?? 'none'] ??= []).push(text);
  return groups;
}

describe('a client that does not ask', { skip }, () => {
  const shared = new Shared();
  before(async () => {
    server = await startServer(shared);
    const make = (app) => startEndpoint(shared, server, app);
    endpoints = new Map([[stored, await make(stored)], [plain, await make(plain)]]);
  });
  after(() => shared.end());

  test('gets the same bytes of a stored channel as of another', async (t) => {
    const names = Object.fromEntries(Object.entries({
      news: 'news', private: 'private-orders', presence: 'presence-room', encrypted: 'private-encrypted-vault',
      cache: 'cache-state', emptyCache: 'private-cache-state',
    }).map(([kind, prefix]) => [kind, unique(prefix)]));
    const [kept, unkept] = [await life(t, stored, names), await life(t, plain, names)];
    assert.ok(unkept.length > 40, `${unkept.length} frames`);
    assert.deepEqual(byChannel(kept), byChannel(unkept));
    const { position } = (await server.api('GET', `/channels/${names.news}`, { params: { info: 'position' } })).json;
    assert.match(position, /:\d+$/, 'it was stored');
  });

  test('gets the same bytes when it is pusher-js', async (t) => {
    const name = unique('private-orders');
    const lives = [];
    for (const app of [stored, plain]) {
      const texts = [];
      const pusher = start(t, server, { app, replay: false, endpoint: endpoints.get(app) });
      pusher.connection.bind('state_change', ({ current }) => {
        if (current !== 'connected') return;
        const { socket } = pusher.connection.connection.transport;
        const { onmessage } = socket;
        socket.onmessage = (message) => {
          texts.push(message.data);
          onmessage(message);
        };
      });
      const events = heard(pusher.subscribe(name));
      assert.equal(await events.next(), SUCCEEDED);
      await publish(server, name, 1, 20, { app });
      await take(events, 20);
      lives.push(texts);
      assert.equal(pusher.channel(name).position, undefined);
    }
    assert.equal(lives[0].length, 21);
    assert.deepEqual(lives[0], lives[1]);
    assert.ok(!Object.hasOwn(Pusher.prototype, 'position'));
  });

  test('gets the same bytes as before beside one that asks', async (t) => {
    const name = unique('news');
    const asking = start(t, server);
    const events = heard(asking.subscribe(name));
    assert.equal(await events.next(), SUCCEEDED);
    const stock = await open(t, stored);
    stock.subscribe(name);
    assert.equal(await stock.texts.next(), `{"event":"pusher_internal:subscription_succeeded","channel":"${name}","data":"{}"}`);
    await publish(server, name, 1);
    assert.equal(await events.next(), 1);
    assert.equal(await stock.texts.next(), `{"event":"counted","channel":"${name}","data":"{\\"n\\":1}"}`);
  });
});
