// The Node server SDK against a server of our own.
import Sdk from 'pusher';
import { MASTER_KEY, startAuthEndpoint } from '../../node/lib/auth-endpoint.js';
import { stored } from './server.js';

export function sdkOf(server, app = stored) {
  return new Sdk({
    appId: app.id,
    key: app.key,
    secret: app.secret,
    host: server.host,
    port: String(server.port),
    useTLS: false,
    encryptionMasterKeyBase64: MASTER_KEY,
  });
}

/** A customer's auth endpoint; `t` is a test or a `Shared`. */
export async function startEndpoint(t, server, app) {
  const endpoint = await startAuthEndpoint(sdkOf(server, app));
  t.after(() => endpoint.stop());
  return endpoint;
}

/** Publishes the numbered events `first..=last`, one after the other. */
export async function publish(server, channel, first, last = first, { app, ...more } = {}) {
  const sdk = sdkOf(server, app);
  for (let n = first; n <= last; n += 1) {
    await sdk.trigger(channel, 'counted', { n }, more).catch(({ status, body, message }) => {
      throw new Error(`publish ${n} to ${channel}: ${status} ${body ?? message}`);
    });
  }
}
