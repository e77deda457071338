// The EventSource of Chromium against event streams: no library in the page, and curl without a page.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { startAuthEndpoint } from '../../node/lib/auth-endpoint.js';
import { app } from '../../node/lib/target.js';
import { Inbox, unique } from '../../node/lib/wait.js';
import { skip, startServer } from '../../replay-js/lib/server.js';
import { launch, ProbePage, startSite } from '../lib/browser.js';
import { nodeSdk } from '../lib/sdk.js';

/** An EventSource waits up to 4.5 s after each try that fails. */
const PATIENCE_MS = 30_000;

let browser;
let site;
before(async () => { [browser, site] = await Promise.all([launch(), startSite()]); });
after(() => Promise.all([browser?.close(), site?.stop()]));

async function prepare(t) {
  const server = await startServer(t);
  const page = await ProbePage.open(t, browser, site, '/event-source.html');
  const sdk = nodeSdk(server.http);
  const publish = async (channel, ...numbers) => {
    for (const n of numbers) await sdk.trigger(channel, 'number', { n });
  };
  return { server, page, sdk, publish, url: `${server.http}/app/${app.key}/sse` };
}

/** Nobody listens for a moment: that an EventSource bears. */
async function restart(server, signal) {
  await server.stop(signal);
  await server.start();
}

/** Everything the page was told so far: the numbers of `channel`. */
async function numbers(page, channel) {
  const notes = (await page.notes()).filter(({ name, data }) => name === 'number' && data.channel === channel);
  return notes.map(({ data }) => JSON.parse(data.data).n);
}

async function hears(page, channel, last) {
  for (;;) {
    const { channel: of, data } = await page.heard('number', PATIENCE_MS);
    if (of === channel && JSON.parse(data).n === last) return;
  }
}

test('a page misses nothing when its server is killed, and when it is drained', { skip }, async (t) => {
  const { server, page, publish, url } = await prepare(t);
  const name = unique('news');
  await page.probe('listen', `${url}?channels=${name}`);
  await page.heard('open');

  // Nothing was ever published: the idle page has a place nevertheless.
  let next = 1;
  for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL', 'SIGTERM']) {
    await restart(server, signal);
    await publish(name, next, next + 1);
    await hears(page, name, next + 1);
    await publish(name, next + 2);
    await hears(page, name, next + 2);
    next += 3;
  }
  assert.deepEqual(await numbers(page, name), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 'each once, in order');
  const told = (await page.notes()).map((note) => note.name);
  assert.ok(!told.some((what) => what === 'closed' || what.startsWith('tidewire:')), JSON.stringify(told));
});

test('a page follows private and presence channels over a restart', { skip }, async (t) => {
  const { server, page, sdk, publish, url } = await prepare(t);
  const endpoint = await startAuthEndpoint(sdk);
  t.after(() => endpoint.stop());
  const [orders, room] = [unique('private-orders'), unique('presence-room')];
  const member = { user_id: 'u-ada', name: 'Ada' };
  await page.probe('listenSigned', url, [orders, room], endpoint.channelUrl, member);
  const here = await page.heard('pusher_internal:subscription_succeeded');
  assert.deepEqual(JSON.parse(here.data).presence.hash, { 'u-ada': { name: 'Ada' } });
  await publish(orders, 1);
  await publish(room, 1);
  await hears(page, room, 1);

  await restart(server, 'SIGTERM');
  await publish(orders, 2);
  await publish(room, 2);
  // With the same token and signatures: both are good on the new server, too.
  await page.heard('pusher_internal:subscription_succeeded', PATIENCE_MS);
  await publish(orders, 3);
  await hears(page, orders, 3);
  assert.deepEqual(await numbers(page, orders), [1, 2, 3]);
  await publish(room, 3);
  await hears(page, room, 3);
  assert.deepEqual(await numbers(page, room), [1, 2, 3]);
});

test('a page that was away for too long is told so, or closed', { skip }, async (t) => {
  const { server, page, publish, url } = await prepare(t);
  const name = unique('short');
  const door = await server.door(t);
  const byDoor = url.replace(server.http, `http://127.0.0.1:${door.port}`);
  await page.probe('listen', `${byDoor}?channels=${name}&on_gap=event`);
  await page.heard('open');
  await publish(name, 1);
  await hears(page, name, 1);
  door.slam();
  await publish(name, 2, 3, 4, 5, 6);
  door.open();
  const gone = await page.heard('tidewire:gone', PATIENCE_MS);
  assert.deepEqual([gone.channel, gone.reason, gone.oldest, gone.newest], [name, 'expired', 4, 6]);
  await publish(name, 7);
  await hears(page, name, 7);
  assert.deepEqual(await numbers(page, name), [1, 7]);

  const strict = await ProbePage.open(t, browser, site, '/event-source.html');
  await strict.probe('listen', `${byDoor}?channels=${name}`);
  await strict.heard('open');
  door.slam();
  await publish(name, 8, 9, 10, 11);
  door.open();
  await strict.heard('closed', PATIENCE_MS);
});

test('curl follows a stream', { skip }, async (t) => {
  const { publish, url } = await prepare(t);
  const name = unique('news');
  const curl = (...more) => {
    const child = spawn('curl', ['--silent', '--show-error', '--no-buffer', '--noproxy', '*', ...more, `${url}?channels=${name}`]);
    const lines = new Inbox('the lines of curl');
    let rest = '';
    child.stdout.on('data', (chunk) => {
      const parts = (rest + chunk).split('\n');
      rest = parts.pop();
      parts.forEach((line) => lines.push(line));
    });
    t.after(() => child.kill());
    return lines;
  };
  const lines = curl();
  const [position] = (await lines.until((line) => line.startsWith('id: '))).slice(-1);
  await publish(name, 1);
  const frame = JSON.stringify({ event: 'number', channel: name, data: '{"n":1}', serial: 1 });
  const [data] = (await lines.until((line) => line.startsWith('data: '))).slice(-1);
  const { epoch, ...plain } = JSON.parse(data.slice(6));
  assert.deepEqual(plain, JSON.parse(frame));

  const back = curl('--header', `Last-Event-ID: ${position.slice(4)}`);
  const [again] = (await back.until((line) => line.startsWith('data: '))).slice(-1);
  assert.equal(JSON.parse(again.slice(6)).replayed, true);
});
