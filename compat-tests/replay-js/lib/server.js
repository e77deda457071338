// A server of our own, with a store that outlives it. The browser suite uses it, too, so it needs no package.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../node/lib/server.js';
import { api } from '../../node/lib/rest.js';
import { app as defaultApp, App } from '../../node/lib/target.js';
import { eventually } from '../../node/lib/wait.js';
import { Door } from './door.js';

const binary = process.env.TIDEWIRE_BIN;

/** The `skip` option of tests that start their own server. */
export const skip = binary ? false : 'needs the server binary (TIDEWIRE_BIN)';

/** Everything is stored, client events too where the name says so. */
export const stored = Object.assign(new App(defaultApp.id, defaultApp.key, defaultApp.secret), {
  settings: {
    replay: {
      rules: [
        { match: 'unstored*', stored: false },
        { match: 'private-talk*', client_events: true },
        { match: '*short*', max_messages: 3 },
        { match: '*' },
      ],
    },
  },
});

/** As a server without replay is. */
export const plain = Object.assign(new App('plain', 'plain-key', 'plain-secret'), { settings: {} });

/** Stands for a test where a whole file shares something: its cleanups run when it is told to. */
export class Shared {
  #cleanups = [];

  after(cleanup) {
    this.#cleanups.unshift(cleanup);
  }

  async end() {
    for (const cleanup of this.#cleanups) await cleanup();
  }
}

/** `t` is a test or a `Shared`. */
export async function startServer(t, replay = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'tidewire-replay-js-'));
  const server = new Server(folder, await freePort());
  await server.configure(replay);
  t.after(async () => {
    await server.stop('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  });
  await server.start();
  return server;
}

class Server {
  log = '';

  constructor(folder, port) {
    Object.assign(this, { folder, port, host: '127.0.0.1', http: `http://127.0.0.1:${port}` });
    this.config = join(folder, 'config.json');
  }

  configure(replay, { isStored = true } = {}) {
    const apps = [stored, plain].map(({ id, key, secret, settings }) => ({
      id, key, secret, ...settings, ...(isStored ? {} : { replay: false }),
    }));
    return writeFile(this.config, JSON.stringify({
      server: { listen: `${this.host}:${this.port}`, drain_seconds: 1 },
      admin: { listen: 'off' },
      replay: { dir: join(this.folder, 'replay'), ...replay },
      apps,
    }));
  }

  async start() {
    // Only what a program needs: TIDEWIRE_* of the test run would be settings of the server.
    const child = spawn(binary, ['--config', this.config], {
      env: { PATH: process.env.PATH, RUST_BACKTRACE: '1' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.on('data', (chunk) => { this.log += chunk; });
    this.child = child;
    this.exited = new Promise((resolve) => child.on('exit', resolve));
    await eventually(async () => {
      if (child.exitCode !== null) throw new Error(`the server exited with ${child.exitCode}:\n${this.log}`);
      return (await fetch(`${this.http}/ready`).catch(() => null))?.ok;
    }, 'the server to be ready').catch((error) => { throw new Error(`${error.message}\n${this.log}`); });
  }

  async stop(signal) {
    this.child.kill(signal);
    await this.exited;
  }

  /**
   * Stops and starts it behind a door. Straight to a single node, pusher-js would come back while nobody listens, and
   * then wait for 15 s.
   */
  async restart(door, signal, { whileDown = () => {}, whileShut = () => {} } = {}) {
    door.shut();
    await this.stop(signal);
    await whileDown();
    await this.start();
    await whileShut();
    door.open();
  }

  /** A signed request below `/apps/{id}`; fails unless it is answered 200. */
  async api(method, path, more = {}) {
    const reply = await api(method, path, { app: stored, base: this.http, ...more });
    if (reply.status !== 200) throw new Error(`${method} ${path}: ${reply.status} ${reply.text}`);
    return reply;
  }

  /** A way to the server that can be shut. */
  door(t) {
    return Door.open(t, this);
  }
}
