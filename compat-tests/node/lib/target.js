// The server under test: addresses and apps, all from the environment.
import { createHmac } from 'node:crypto';

const http = new URL(process.env.TIDEWIRE_HTTP ?? 'http://127.0.0.1:6001');
const ws = new URL(process.env.TIDEWIRE_WS ?? http.href.replace(/^http/, 'ws'));

const tls = ws.protocol === 'wss:';

/** Where the server listens. `http` and `ws` may be two doors of one server (a proxy, say). */
export const target = {
  http: http.origin,
  httpHost: http.hostname,
  httpPort: Number(http.port || (http.protocol === 'https:' ? 443 : 80)),
  httpTls: http.protocol === 'https:',
  ws: `${ws.protocol}//${ws.host}`,
  wsHost: ws.hostname,
  wsPort: Number(ws.port || (tls ? 443 : 80)),
  tls,
};

/** One app's credentials, with the signatures an auth endpoint would make. */
export class App {
  constructor(id, key, secret) {
    Object.assign(this, { id, key, secret });
  }

  hmac(text) {
    return createHmac('sha256', this.secret).update(text).digest('hex');
  }

  channelAuth(socketId, channel, channelData) {
    const parts = channelData == null ? [socketId, channel] : [socketId, channel, channelData];
    return `${this.key}:${this.hmac(parts.join(':'))}`;
  }

  userAuth(socketId, userData) {
    return `${this.key}:${this.hmac(`${socketId}::user::${userData}`)}`;
  }
}

/** The app every test uses unless it says otherwise: client events on, everything else at its default. */
export const app = new App(
  process.env.TIDEWIRE_APP_ID ?? '42',
  process.env.TIDEWIRE_APP_KEY ?? 'tw-demo-key',
  process.env.TIDEWIRE_APP_SECRET ?? 'tw-demo-secret',
);

/**
 * An app with unusual settings, given as TIDEWIRE_APP_<NAME>=id:key:secret. A server that does not have it cannot
 * be asked, so tests pass `skipWithout(…)` as their `skip` option.
 */
export function namedApp(name) {
  const [id, key, secret] = (process.env[`TIDEWIRE_APP_${name.toUpperCase()}`] ?? '').split(':');
  return secret ? new App(id, key, secret) : null;
}

export function skipWithout(named) {
  return namedApp(named) ? false : `no app '${named}' on this server (TIDEWIRE_APP_${named.toUpperCase()})`;
}
