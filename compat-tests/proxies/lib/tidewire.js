// One Tidewire node with two apps: an ordinary one, and one that accepts wss only.
import fs from 'node:fs';
import path from 'node:path';
import { folder, freePort, start } from './processes.js';

export const app = { id: '42', key: 'tw-proxy-key', secret: 'tw-proxy-secret' };
export const tlsApp = { id: '43', key: 'tw-tls-key', secret: 'tw-tls-secret', require_tls: true };

/** Starts the node. It trusts loopback proxies because that is the default. */
export async function startTidewire() {
  const [port, adminPort] = [await freePort(), await freePort()];
  const config = path.join(folder('tidewire'), 'config.json');
  fs.writeFileSync(config, JSON.stringify({
    server: { listen: [`127.0.0.1:${port}`], drain_seconds: 0 },
    admin: { listen: `127.0.0.1:${adminPort}` },
    apps: [app, tlsApp],
  }));
  const node = await start('tidewire', process.env.TIDEWIRE_BIN, ['serve', '--config', config], {
    url: `http://127.0.0.1:${port}/up`,
  });
  return { ...node, port };
}
