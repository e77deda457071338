// Each shipped proxy configuration carries clients and publishers over TLS, and does not cut those who are quiet.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { client, connected, publishBelow, publisher, refusal, subscribed } from '../lib/clients.js';
import { follow } from '../lib/event-stream.js';
import { installed, names, startProxy } from '../lib/proxies.js';
import { app, startTidewire, tlsApp } from '../lib/tidewire.js';
import { once } from '../lib/wait.js';

// nginx and HAProxy cut a quiet connection after 60 s unless told otherwise; nobody sends anything before 120 s.
const QUIET_SECONDS = 66;

const proxies = {};
const failures = {};
let node;

// Everything starts at once, so that the quiet clients of all proxies are quiet through the same minute.
before(async () => {
  node = await startTidewire();
  await Promise.all(names.filter((name) => installed(name)).map(async (name) => {
    try {
      proxies[name] = await startProxy(name, node.port);
      proxies[name].quiet = await startQuietClient(name);
    } catch (error) {
      failures[name] = error;
    }
  }));
});

after(async () => {
  for (const { quiet } of Object.values(proxies)) quiet?.pusher.disconnect();
  await Promise.all(Object.values(proxies).map((proxy) => proxy.stop()));
  await node?.stop();
});

test('S016 without a proxy, the app that demands TLS refuses a plain connection with 4000', async (t) => {
  const pusher = client(tlsApp, node.port, { forceTLS: false, enabledTransports: ['ws'] });
  t.after(() => pusher.disconnect());
  assert.equal(await refusal(pusher), 4000);
});

/** Why a proxy's tests are skipped. In CI they are not: there a missing program is a failure. */
const skipped = (name) => (installed(name) || process.env.CI ? false : `${name} is not installed`);

function running(name) {
  if (failures[name]) throw failures[name];
  return proxies[name] ?? assert.fail(`${name} is not installed`);
}

async function startQuietClient(name) {
  const pusher = client(app, proxies[name].tls);
  try {
    await once(pusher.connection, 'connected');
    const channel = await subscribed(pusher, `quiet-${name}`);
    return { pusher, channel, socketId: pusher.connection.socket_id, since: Date.now() };
  } catch (error) {
    pusher.disconnect();
    throw error;
  }
}

for (const name of names) {
  describe(name, { skip: skipped(name) }, () => {
    const proxy = () => running(name);

    test(`${name} carries an event from an https publisher to a wss client`, async (t) => {
      const pusher = await connected(t, app, proxy().tls);
      const channel = await subscribed(pusher, `public-${name}`);
      const event = once(channel, 'greeting');
      const reply = await publisher(app, proxy().tls).trigger(`public-${name}`, 'greeting', { from: name });
      assert.equal(reply.status, 200);
      assert.deepEqual(await event, { from: name });
    });

    test(`${name} carries a private channel and a client event from one client to another`, async (t) => {
      const [ada, bob] = [await connected(t, app, proxy().tls), await connected(t, app, proxy().tls)];
      const channels = [];
      for (const pusher of [ada, bob]) channels.push(await subscribed(pusher, `private-${name}`));
      const event = once(channels[1], 'client-typing');
      assert.ok(channels[0].trigger('client-typing', { who: 'ada' }));
      assert.deepEqual(await event, { who: 'ada' });
    });

    test(`${name} carries a batch of ten events of ten kilobytes`, async (t) => {
      const pusher = await connected(t, app, proxy().tls);
      const channel = await subscribed(pusher, `big-${name}`);
      const last = once(channel, 'part-9');
      const data = 'x'.repeat(10_000);
      const batch = Array.from({ length: 10 }, (_, i) => ({ channel: `big-${name}`, name: `part-${i}`, data }));
      assert.equal((await publisher(app, proxy().tls).triggerBatch(batch)).status, 200);
      assert.equal(await last, data);
    });

    test(`${name} tells the app that demands TLS that the client came over TLS`, async (t) => {
      const pusher = await connected(t, tlsApp, proxy().tls);
      await subscribed(pusher, 'private-over-tls');
    });

    test(`${name} lets the reason of a refusal through`, async (t) => {
      const pusher = client({ ...app, key: 'no-such-key' }, proxy().tls);
      t.after(() => pusher.disconnect());
      assert.equal(await refusal(pusher), 4001);
    });

    test(`${name} takes clients and publishers below /ws`, async (t) => {
      const pusher = await connected(t, app, proxy().tls, { wsPath: '/ws' });
      const channel = await subscribed(pusher, `below-${name}`);
      const event = once(channel, 'greeting');
      const message = { name: 'greeting', channel: `below-${name}`, data: { below: true } };
      const reply = await publishBelow('/ws', app, proxy().tls, message);
      assert.equal(reply.status, 200, await reply.text());
      assert.deepEqual(await event, { below: true });
    });

    test(`${name} passes an event stream on as it comes`, async (t) => {
      for (const prefix of ['', '/ws']) {
        const channel = `stream-${name}${prefix.slice(1)}`;
        const comes = await follow(t, `https://localhost:${proxy().tls}${prefix}/app/${app.key}/sse?channels=${channel}`);
        await comes('retry: ');
        for (const n of [1, 2]) {
          const reply = await publisher(app, proxy().tls).trigger(channel, 'number', { n });
          assert.equal(reply.status, 200);
          await comes(`"data":"{\\"n\\":${n}}"`);
        }
      }
    });

    test(`${name} answers health checks`, async () => {
      for (const path of ['/up', '/ready', '/ws/up']) {
        assert.equal((await fetch(`https://localhost:${proxy().tls}${path}`)).status, 200, path);
      }
    });

    test(`${name} sends plain HTTP on to HTTPS without turning POST into GET`, async () => {
      const url = `http://localhost:${proxy().plain}/apps/${app.id}/events`;
      const reply = await fetch(url, { method: 'POST', body: '{}', redirect: 'manual' });
      assert.equal(reply.status, 308);
      assert.match(reply.headers.get('location'), /^https:\/\/localhost(:\d+)?\/apps\/42\/events$/);
    });
  });
}

describe('after a quiet minute', () => {
  for (const name of names) {
    test(`a client behind ${name} is still connected and receives`, { skip: skipped(name) }, async () => {
      const { quiet, tls } = running(name);
      await sleep(Math.max(0, quiet.since + QUIET_SECONDS * 1000 - Date.now()));
      // pusher-js reconnects by itself, so only the socket id tells that nobody cut it.
      assert.equal(quiet.pusher.connection.socket_id, quiet.socketId);
      const event = once(quiet.channel, 'wake');
      await publisher(app, tls).trigger(`quiet-${name}`, 'wake', {});
      await event;
      assert.equal(quiet.pusher.connection.socket_id, quiet.socketId);
    });
  }
});
