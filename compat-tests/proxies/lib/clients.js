// A browser and a backend that know nothing but the address of the proxy.
import { createRequire } from 'node:module';
import crypto from 'node:crypto';
import { once } from './wait.js';

const require = createRequire(import.meta.url);
const PusherJs = require('pusher-js');
const PusherSdk = require('pusher');

/** The publisher of an app, over https through the proxy. */
export function publisher(app, port) {
  return new PusherSdk({ appId: app.id, key: app.key, secret: app.secret, host: 'localhost', port, useTLS: true });
}

/** A pusher-js client over wss; `options.wsPath` puts it below a path. Private channels are signed in place. */
export function client(app, port, options = {}) {
  const sdk = publisher(app, port);
  return new PusherJs(app.key, {
    cluster: '',
    wsHost: 'localhost',
    wsPort: port,
    wssPort: port,
    forceTLS: true,
    enabledTransports: ['ws', 'wss'],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, sdk.authorizeChannel(socketId, channelName)),
    },
    ...options,
  });
}

/** A client that is connected when this returns, and gone when the test is over. */
export async function connected(t, app, port, options) {
  const pusher = client(app, port, options);
  t.after(() => pusher.disconnect());
  await once(pusher.connection, 'connected');
  return pusher;
}

/** The code with which the server refuses the client. */
export async function refusal(pusher) {
  const { error } = await once(pusher.connection, 'error');
  return error?.data?.code;
}

/** A channel that is subscribed when this returns. */
export async function subscribed(pusher, name) {
  const channel = pusher.subscribe(name);
  await once(channel, 'pusher:subscription_succeeded');
  return channel;
}

/** A publish as the PHP SDK sends it below a path: the path in front is not part of what is signed. */
export async function publishBelow(prefix, app, port, { name, channel, data }) {
  const body = JSON.stringify({ name, channel, data: JSON.stringify(data) });
  const path = `/apps/${app.id}/events`;
  const query = [
    `auth_key=${app.key}`,
    `auth_timestamp=${Math.floor(Date.now() / 1000)}`,
    'auth_version=1.0',
    `body_md5=${crypto.createHash('md5').update(body).digest('hex')}`,
  ].join('&');
  const signature = crypto.createHmac('sha256', app.secret).update(`POST\n${path}\n${query}`).digest('hex');
  return fetch(`https://localhost:${port}${prefix}${path}?${query}&auth_signature=${signature}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
}
