// Laravel Echo with tidewire-replay in Chromium: the socket dies, the server dies, the page is reloaded.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startAuthEndpoint } from '../../node/lib/auth-endpoint.js';
import { app } from '../../node/lib/target.js';
import { unique } from '../../node/lib/wait.js';
import { skip, startServer } from '../../replay-js/lib/server.js';
import { launch, options, ProbePage, startSite } from '../lib/browser.js';
import { nodeSdk } from '../lib/sdk.js';

const SCREENSHOTS = fileURLToPath(new URL('../../../.work/browser/', import.meta.url));

let browser;
let site;
before(async () => { [browser, site] = await Promise.all([launch(), startSite()]); });
after(() => Promise.all([browser?.close(), site?.stop()]));

async function prepare(t) {
  const server = await startServer(t);
  const door = await server.door(t);
  const sdk = nodeSdk(server.http);
  const endpoint = await startAuthEndpoint(sdk);
  t.after(() => endpoint.stop());
  const name = unique('orders');
  const page = await ProbePage.open(t, browser, site, '/replay.html');
  const { cluster, channelAuthorization, userAuthentication, ...address } = options(null, {}, door);
  const begin = async () => {
    await page.heard('loaded');
    await page.probe('startEcho', {
      broadcaster: 'reverb', key: app.key, ...address, authEndpoint: endpoint.channelUrl,
    }, name);
    await page.heard('subscribed');
  };
  await begin();
  const paid = (n) => sdk.trigger(`private-${name}`, 'App\\Events\\OrderPaid', { n });
  return { server, door, page, begin, paid };
}

/** Waits until the page has shown so many orders; resolves to all it has shown. */
async function shown(page, last) {
  await page.page.waitForFunction((n) => window.probe.orders().includes(n), last, { timeout: 15_000 }).catch(async (error) => {
    throw new Error(`order ${last} was not shown: ${JSON.stringify(await page.notes())} (${error.message.split('\n')[0]})`);
  });
  return page.probe('orders');
}

test('a page shows every message once, over a dead socket and restarts of the server', { skip }, async (t) => {
  const { server, door, page, paid } = await prepare(t);
  await paid(1);
  assert.deepEqual(await shown(page, 1), [1]);

  door.slam();
  await page.reaches('connecting');
  await paid(2);
  await paid(3);
  door.open();
  assert.deepEqual(await shown(page, 3), [1, 2, 3]);

  for (const [signal, n] of [['SIGKILL', 4], ['SIGTERM', 7]]) {
    await server.restart(door, signal, {
      whileShut: async () => {
        await paid(n);
        await paid(n + 1);
      },
    });
    await shown(page, n + 1);
    await page.reaches('connected');
    await paid(n + 2);
    await shown(page, n + 2);
  }
  assert.deepEqual(await page.probe('orders'), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.ok(!(await page.notes()).some(({ name }) => name === 'resync'), 'nothing had to be fetched');
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.page.screenshot({ path: `${SCREENSHOTS}replay.png`, fullPage: true });
});

test('a reloaded page shows what was published meanwhile', { skip }, async (t) => {
  const { page, begin, paid } = await prepare(t);
  await paid(1);
  await shown(page, 1);
  await page.page.goto('about:blank');
  await paid(2);
  await paid(3);
  await page.page.goBack();
  page.taken = 0;
  await begin();
  await shown(page, 3);
  await paid(4);
  assert.deepEqual(await shown(page, 4), [2, 3, 4]);
});
