// The Node server SDK, pointed at the server under test.
import Pusher from 'pusher';
import { MASTER_KEY } from '../../node/lib/auth-endpoint.js';
import { app, target } from '../../node/lib/target.js';

/** `http` is the origin of another server than the shared one. */
export function nodeSdk(http = target.http) {
  const { hostname, port, protocol } = new URL(http);
  return new Pusher({
    appId: app.id,
    key: app.key,
    secret: app.secret,
    host: hostname,
    port,
    useTLS: protocol === 'https:',
    encryptionMasterKeyBase64: MASTER_KEY,
  });
}
