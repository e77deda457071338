// Laravel Echo in Chromium, as a script tag loads it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startAuthEndpoint } from '../../node/lib/auth-endpoint.js';
import { app } from '../../node/lib/target.js';
import { unique } from '../../node/lib/wait.js';
import { launch, options, ProbePage, startSite } from '../lib/browser.js';
import { nodeSdk } from '../lib/sdk.js';

const sdk = nodeSdk();
let browser;
let site;
let endpoint;
before(async () => {
  [browser, site, endpoint] = await Promise.all([launch(), startSite(), startAuthEndpoint(sdk)]);
});
after(() => Promise.all([browser?.close(), site?.stop(), endpoint?.stop()]));

async function startEcho(t, broadcaster, user) {
  const page = await ProbePage.open(t, browser, site, '/echo.html');
  const { cluster, channelAuthorization, userAuthentication, ...address } = options(endpoint);
  await page.page.evaluate((settings) => {
    const { default: Echo } = window.Echo;
    window.echo = new Echo(settings);
    window.probe.watch(window.echo.connector.pusher);
  }, {
    broadcaster,
    key: app.key,
    ...address,
    ...(broadcaster === 'pusher' ? { cluster: 'mt1' } : {}),
    authEndpoint: endpoint.channelUrl,
    auth: { headers: {}, params: { user_id: user, name: `Name of ${user}` } },
  });
  await page.reaches('connected');
  return page;
}

const joinRoom = (page, room) => page.page.evaluate((name) => {
  const { note } = window.probe;
  window.room = window.echo.join(name)
    .here((members) => note('here', members))
    .joining((member) => note('joining', member))
    .leaving((member) => note('leaving', member))
    .listen('OrderPaid', (event) => note('OrderPaid', event))
    .listenForWhisper('typing', (data) => note('whisper', data));
}, room);

for (const broadcaster of ['pusher', 'reverb']) {
  test(`S223 S224 S225 Echo (${broadcaster}) in two pages shares a room`, async (t) => {
    const room = unique('room');
    const ada = await startEcho(t, broadcaster, 'u-ada');
    await joinRoom(ada, room);
    assert.deepEqual(await ada.heard('here'), [{ name: 'Name of u-ada' }]);
    const lin = await startEcho(t, broadcaster, 'u-lin');
    await joinRoom(lin, room);
    assert.equal((await lin.heard('here')).length, 2);
    assert.deepEqual(await ada.heard('joining'), { name: 'Name of u-lin' });

    await lin.page.evaluate(() => { window.room.whisper('typing', { on: true }); });
    assert.deepEqual(await ada.heard('whisper'), { on: true });
    const socketId = await ada.page.evaluate(() => window.echo.socketId());
    await sdk.trigger(`presence-${room}`, 'App\\Events\\OrderPaid', { id: 1 }, { socket_id: socketId });
    await sdk.trigger(`presence-${room}`, 'App\\Events\\OrderPaid', { id: 2 });
    assert.deepEqual(await lin.heard('OrderPaid'), { id: 1 });
    assert.deepEqual(await ada.heard('OrderPaid'), { id: 2 }, 'the excluded page gets only the second');

    await lin.page.evaluate((name) => { window.echo.leave(name); }, room);
    assert.deepEqual(await ada.heard('leaving'), { name: 'Name of u-lin' });
    assert.ok(!(await lin.notes()).some(({ name }) => name === 'whisper'));
  });
}
