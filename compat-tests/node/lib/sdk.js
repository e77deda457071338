// The Node server SDKs, pointed at the server under test.
import PusherEdge from 'pusher-http-edge';
import Pusher from 'pusher';
import { MASTER_KEY } from './auth-endpoint.js';
import { app as defaultApp, target } from './target.js';

function options(app) {
  return {
    appId: app.id,
    key: app.key,
    secret: app.secret,
    host: target.httpHost,
    port: String(target.httpPort),
    useTLS: target.httpTls,
    encryptionMasterKeyBase64: MASTER_KEY,
    timeout: 15_000,
  };
}

export function nodeSdk(app = defaultApp) {
  return new Pusher(options(app));
}

export function edgeSdk(app = defaultApp) {
  return new PusherEdge(options(app));
}

export { Pusher, PusherEdge };
