// Programs that a test starts and ends: Tidewire itself and the proxies, all on free ports of loopback.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** The folder of this run, with the certificate in it. */
export const work = process.env.TIDEWIRE_PROXIES_WORK;

/** Debian keeps nginx and HAProxy where an ordinary user does not look. */
export const searchPath = `${process.env.PATH}:/usr/sbin:/sbin`;

const NOBODY = 65534;
const START_SECONDS = 20;

/** A port that was free a moment ago. */
export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A folder that also a program without privileges may write to. */
export function folder(name) {
  const dir = path.join(work, name);
  fs.mkdirSync(dir, { recursive: true });
  if (process.getuid() === 0) fs.chownSync(dir, NOBODY, NOBODY);
  return dir;
}

/**
 * Starts a program and waits until `url` answers 200. `unprivileged` gives root away first. The returned `stop`
 * ends it; what it wrote is shown when it does not come up. It gets no environment but `env`: to Tidewire, the
 * TIDEWIRE_* variables of the suites would be settings.
 */
export async function start(name, command, args, { url, env = {}, unprivileged = false }) {
  if (unprivileged && process.getuid() === 0) {
    args = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--', command, ...args];
    command = 'setpriv';
  }
  const log = path.join(work, `${name}.log`);
  const output = fs.openSync(log, 'w');
  const child = spawn(command, args, { stdio: ['ignore', output, output], env: { PATH: searchPath, ...env } });
  let ended;
  const exit = new Promise((resolve) => {
    child.on('error', (error) => resolve((ended = String(error))));
    child.on('exit', (code, signal) => resolve((ended = `ended with ${signal ?? code}`)));
  });
  const stop = async () => {
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 3000);
    await exit;
    clearTimeout(late);
  };

  const deadline = Date.now() + START_SECONDS * 1000;
  let last = 'nothing yet';
  while (!ended && Date.now() < deadline) {
    try {
      const reply = await fetch(url, { signal: AbortSignal.timeout(2000) });
      if (reply.status === 200) return { stop };
      last = `HTTP ${reply.status}`;
    } catch (error) {
      last = String(error.cause ?? error);
    }
    await sleep(50);
  }
  const why = ended ?? `${url} did not answer 200 in ${START_SECONDS} s (${last})`;
  if (!ended) await stop();
  throw new Error(`${name} did not start: ${why}\n${fs.readFileSync(log, 'utf8')}`);
}
