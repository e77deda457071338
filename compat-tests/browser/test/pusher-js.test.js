// pusher-js in Chromium: the builds that applications load in pages and in workers.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startAuthEndpoint } from '../../node/lib/auth-endpoint.js';
import { skipWithoutBinary, startServer } from '../../node/lib/server.js';
import { app, namedApp, skipWithout } from '../../node/lib/target.js';
import { unique } from '../../node/lib/wait.js';
import { launch, options, ProbePage, startSite } from '../lib/browser.js';
import { nodeSdk } from '../lib/sdk.js';

const SCREENSHOTS = fileURLToPath(new URL('../../../.work/browser/', import.meta.url));
const SUCCESS = 'pusher:subscription_succeeded';

const sdk = nodeSdk();
let browser;
let site;
let endpoint;
before(async () => {
  [browser, site, endpoint] = await Promise.all([launch(), startSite(), startAuthEndpoint(sdk)]);
});
after(() => Promise.all([browser?.close(), site?.stop(), endpoint?.stop()]));

/** A page whose client is connected. */
async function connected(t, { path = '/client.html', params = {}, address, more = {} } = {}) {
  const page = await ProbePage.open(t, browser, site, path);
  await page.probe('connect', app.key, { ...options(endpoint, params, address), ...more });
  await page.reaches('connected');
  return page;
}

async function join(page, name) {
  await page.probe('subscribe', name);
  return page.heard(`${name} ${SUCCESS}`);
}

const trigger = (page, name, event, data) => page.page.evaluate(
  ([channel, what, value]) => window.probe.pusher.channel(channel).trigger(what, value), [name, event, data],
);

test('S001 S043 S131 a page connects, subscribes and receives', async (t) => {
  const page = await connected(t);
  assert.match(await page.socketId(), /^\d+\.\d+$/);
  const name = unique('news');
  assert.deepEqual(await join(page, name), {});
  await sdk.trigger(name, 'headline', { text: 'Tide comes in: é 😀 </script>' });
  assert.deepEqual(await page.heard(`${name} headline`), { text: 'Tide comes in: é 😀 </script>' });
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.page.screenshot({ path: `${SCREENSHOTS}pusher-js.png` });
});

test('S012 a page with an unknown key ends disconnected', async (t) => {
  const page = await ProbePage.open(t, browser, site, '/client.html');
  await page.probe('connect', 'no-such-key', options());
  assert.equal((await page.heard('error')).error.data.code, 4001);
  await page.reaches('disconnected');
});

test('S018 a page from an origin that is not allowed is refused', { skip: skipWithout('origin') }, async (t) => {
  const page = await ProbePage.open(t, browser, site, '/client.html');
  await page.probe('connect', namedApp('origin').key, options());
  assert.equal((await page.heard('error')).error.data.code, 4009);
  await page.reaches('disconnected');
});

test('S028 an idle page pings and is answered, also when the browser believes to be offline', async (t) => {
  const page = await connected(t, { more: { activityTimeout: 300, pongTimeout: 10_000 } });
  const socketId = await page.socketId();
  await page.heard('pong');
  await page.heard('pong');
  await page.page.evaluate(() => window.dispatchEvent(new Event('offline')));
  await page.heard('pong');
  assert.equal(await page.socketId(), socketId);
});

test('S057 S087 S088 pages exchange client events on a private channel', async (t) => {
  const [one, two] = [await connected(t), await connected(t)];
  const name = unique('private-chat');
  for (const page of [one, two]) await join(page, name);
  await trigger(one, name, 'client-typing', { who: 'Ada' });
  assert.deepEqual(await two.heard(`${name} client-typing`), { who: 'Ada' });
  await sdk.trigger(name, 'marker', {});
  await one.heard(`${name} marker`);
  assert.ok(!(await one.notes()).some((note) => note.name === `${name} client-typing`));
});

test('S069 S071 S073 S074 pages see each other come and go', async (t) => {
  const name = unique('presence-room');
  const ada = await connected(t, { params: { user_id: 'u-ada', name: 'Ada' } });
  assert.deepEqual((await join(ada, name)).members, { 'u-ada': { name: 'Ada' } });
  const lin = await connected(t, { params: { user_id: 'u-lin', name: 'Lin' } });
  assert.equal((await join(lin, name)).count, 2);
  assert.deepEqual(await ada.heard(`${name} pusher:member_added`), { id: 'u-lin', info: { name: 'Lin' } });
  await lin.page.close();
  assert.deepEqual(await ada.heard(`${name} pusher:member_removed`), { id: 'u-lin', info: { name: 'Lin' } });
});

test('S110 S111 the build with encryption decrypts', async (t) => {
  const page = await connected(t, { path: '/encrypted.html' });
  const name = unique('private-encrypted-vault');
  await join(page, name);
  await sdk.trigger(name, 'opened', { code: 'é 😀' });
  assert.deepEqual(await page.heard(`${name} opened`), { code: 'é 😀' });
});

test('S116 S120 S122 S181 a page signs in, hears its user events, and stays down when it is terminated', async (t) => {
  const user = unique('user');
  const page = await connected(t, { params: { user_id: user } });
  await page.page.evaluate((id) => {
    const { pusher } = window.probe;
    pusher.user.bind('notice', (data) => window.probe.note('notice', data));
    pusher.connection.bind('message', ({ event, channel }) => {
      if (event === 'pusher_internal:subscription_succeeded' && channel === `#server-to-user-${id}`) window.probe.note('signed in');
    });
    pusher.signin();
  }, user);
  await page.heard('signed in');
  await sdk.sendToUser(user, 'notice', { n: 1 });
  assert.deepEqual(await page.heard('notice'), { n: 1 });
  await sdk.terminateUserConnections(user);
  await page.reaches('disconnected');
  assert.ok(!(await page.notes()).slice(page.taken).some(({ name }) => name === 'state'));
});

test('S001 S043 S057 S087 the worker build does the same in a Web Worker', async (t) => {
  const page = await ProbePage.open(t, browser, site, '/worker.html');
  const tell = (command, more = {}) => page.page.evaluate((message) => {
    // eslint-disable-next-line no-undef -- a top-level constant of the page
    worker.postMessage(message);
  }, { command, ...more });
  await tell('connect', { key: app.key, options: options(endpoint) });
  await page.reaches('connected');
  const [news, chat] = [unique('news'), unique('private-chat')];
  await tell('subscribe', { name: news });
  assert.deepEqual(await page.heard(`${news} ${SUCCESS}`), {});
  await sdk.trigger(news, 'headline', { n: 1 });
  assert.deepEqual(await page.heard(`${news} headline`), { n: 1 });
  await tell('subscribe', { name: chat });
  await page.heard(`${chat} ${SUCCESS}`);
  const other = await connected(t);
  await join(other, chat);
  await tell('trigger', { name: chat, event: 'client-typing', payload: { from: 'worker' } });
  assert.deepEqual(await other.heard(`${chat} client-typing`), { from: 'worker' });
});

test('S026 a page whose server restarts comes back to the same channels', { skip: skipWithoutBinary }, async (t) => {
  const first = await startServer(t, { server: { drain_seconds: 1 } });
  const page = await connected(t, { address: first });
  const [news, room] = [unique('news'), unique('private-room')];
  await join(page, news);
  await join(page, room);
  const before = await page.socketId();
  first.signal('SIGTERM');
  await first.exited;
  const second = await startServer(t, { port: first.port });
  // pusher-js waits up to 15 s for a connection that was refused while nobody listened.
  await page.heard(`${news} ${SUCCESS}`, 60_000);
  await page.probe('note', 'back');
  assert.notEqual(await page.socketId(), before);
  await nodeSdk(second.http).trigger([news, room], 'again', {});
  await page.heard(`${room} again`);
  const names = (await page.notes()).map(({ name }) => name);
  assert.equal(names.filter((name) => name === `${news} again`).length, 1);
});
