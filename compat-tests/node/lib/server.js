// A server of our own, for tests that stop it, drain it or need settings no shared server can have.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { app } from './target.js';
import { eventually } from './wait.js';

const binary = process.env.TIDEWIRE_BIN;

/** The `skip` option of tests that start their own server. */
export const skipWithoutBinary = binary ? false : 'needs the server binary (TIDEWIRE_BIN)';

export async function freePort() {
  const probe = net.createServer();
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Starts the binary with this configuration on a free (or given) port and waits until it is ready. */
export async function startServer(t, { server = {}, apps = [demoApp()], port } = {}) {
  const listenPort = port ?? await freePort();
  const folder = await mkdtemp(join(tmpdir(), 'tidewire-compat-'));
  const file = join(folder, 'config.json');
  const config = { server: { listen: `127.0.0.1:${listenPort}`, ...server }, admin: { listen: 'off' }, apps };
  await writeFile(file, JSON.stringify(config));
  // Only what a program needs: TIDEWIRE_* of the test run would be settings of the server.
  const child = spawn(binary, ['--config', file], {
    env: { PATH: process.env.PATH, RUST_BACKTRACE: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk) => { log += chunk; });
  const exited = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    await rm(folder, { recursive: true, force: true });
  });
  const prefix = server.path_prefix ?? '';
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(`the server exited with ${child.exitCode}:\n${log}`);
    return await status(listenPort, '/ready') === 200 || await status(listenPort, `${prefix}/ready`) === 200;
  }, 'the server to be ready').catch((error) => { throw new Error(`${error.message}\n${log}`); });
  return {
    port: listenPort,
    http: `http://127.0.0.1:${listenPort}`,
    ws: `ws://127.0.0.1:${listenPort}`,
    exited,
    log: () => log,
    signal: (name) => child.kill(name),
  };
}

/** The app of the shared server, for a server of our own. */
export function demoApp(more = {}) {
  return { id: app.id, key: app.key, secret: app.secret, ...more };
}

function status(port, path) {
  return new Promise((resolve) => {
    const request = http.get({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', () => resolve(0));
  });
}
