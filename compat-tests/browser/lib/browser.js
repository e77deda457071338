// Headless Chromium, and pages that run the real client libraries in it.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { chromium } from 'playwright-core';
import { target } from '../../node/lib/target.js';
import { DEADLINE_MS } from '../../node/lib/wait.js';

const at = (path) => new URL(`../${path}`, import.meta.url);

/** What the site serves: pages of this suite, and the files the packages publish for browsers. */
const FILES = {
  '/client.html': 'pages/client.html',
  '/encrypted.html': 'pages/encrypted.html',
  '/echo.html': 'pages/echo.html',
  '/event-source.html': 'pages/event-source.html',
  '/replay.html': 'pages/replay.html',
  '/worker.html': 'pages/worker.html',
  '/worker.js': 'pages/worker.js',
  '/probe.js': 'pages/probe.js',
  '/pusher.js': 'node_modules/pusher-js/dist/web/pusher.js',
  '/pusher-with-encryption.js': 'node_modules/pusher-js/dist/web/pusher-with-encryption.js',
  '/pusher.worker.js': 'node_modules/pusher-js/dist/worker/pusher.worker.js',
  '/echo.js': 'node_modules/laravel-echo/dist/echo.iife.js',
  ...Object.fromEntries(['index', 'attach', 'cursor', 'options'].map((name) => [
    `/tidewire-replay/${name}.js`, `../../clients/replay-js/dist/esm/${name}.js`,
  ])),
};

export async function startSite() {
  const server = http.createServer(async (request, response) => {
    const file = FILES[request.url.split('?')[0]];
    if (!file) return response.writeHead(404).end();
    const type = file.endsWith('.html') ? 'text/html' : 'text/javascript';
    response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(await readFile(at(file)));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.TIDEWIRE_CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  });
}

/** A page of the site, with verbs for its probe. Errors of the page fail the test that opened it. */
export class ProbePage {
  static async open(t, browser, site, path) {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error));
    t.after(async () => {
      await page.close();
      assert.deepEqual(errors, [], 'the page raised errors');
    });
    await page.goto(`${site.origin}${path}`);
    return new ProbePage(page);
  }

  constructor(page) {
    this.page = page;
    this.taken = 0;
  }

  /** Runs a verb of the probe in the page. */
  probe(verb, ...values) {
    return this.page.evaluate(([name, rest]) => window.probe[name](...rest), [verb, values]);
  }

  /** Takes the notes up to and including the first called `name`; resolves to that one's data. */
  async heard(name, deadlineMs = DEADLINE_MS) {
    const find = ([wanted, from]) => {
      const index = window.probe.notes.findIndex((note, n) => n >= from && note.name === wanted);
      return index < 0 ? null : { index, data: window.probe.notes[index].data };
    };
    const handle = await this.page.waitForFunction(find, [name, this.taken], { timeout: deadlineMs }).catch(async (error) => {
      throw new Error(`waited for ${name}, heard ${JSON.stringify(await this.notes())} (${error.message.split('\n')[0]})`);
    });
    const { index, data } = await handle.jsonValue();
    this.taken = index + 1;
    return data;
  }

  /** Waits for a state of the connection. */
  async reaches(state, deadlineMs = DEADLINE_MS) {
    const end = Date.now() + deadlineMs;
    while (await this.heard('state', Math.max(1, end - Date.now())) !== state);
  }

  notes() {
    return this.page.evaluate(() => window.probe.notes);
  }

  socketId() {
    return this.page.evaluate(() => window.probe.pusher.connection.socket_id);
  }
}

/** The options of pusher-js for a page. */
export function options(endpoint, params = {}, address = { host: target.wsHost, port: target.wsPort }) {
  return {
    cluster: '',
    wsHost: address.host ?? '127.0.0.1',
    wsPort: address.port,
    wssPort: address.port,
    forceTLS: target.tls,
    enabledTransports: ['ws', 'wss'],
    ...(endpoint ? {
      channelAuthorization: { endpoint: endpoint.channelUrl, transport: 'ajax', params },
      userAuthentication: { endpoint: endpoint.userUrl, transport: 'ajax', params },
    } : {}),
  };
}
