// Signed HTTP API requests made by hand, for what the SDKs refuse to send.
import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { app as defaultApp, target } from './target.js';

export function md5(text) {
  return createHash('md5').update(text).digest('hex');
}

/** The query of a request, signed; `params` are the caller's own (`info`, …), `auth` replaces single auth fields. */
export function signedQuery({ method, path, body = '', params = {}, auth = {}, app = defaultApp }) {
  const query = {
    auth_key: app.key,
    auth_timestamp: String(Math.floor(Date.now() / 1000)),
    auth_version: '1.0',
    ...(body === '' ? {} : { body_md5: md5(body) }),
    ...params,
    ...auth,
  };
  for (const [name, value] of Object.entries(query)) if (value === null) delete query[name];
  const canonical = Object.keys(query).sort().map((name) => `${name}=${query[name]}`).join('&');
  return { ...query, auth_signature: app.hmac(`${method}\n${path}\n${canonical}`) };
}

/** Joins a query without escaping, as the Node, Go, .NET and Python SDKs do. */
export function plainQuery(query) {
  return Object.entries(query).map(([name, value]) => `${name}=${value}`).join('&');
}

/** Sends one request; resolves to `{ status, headers, text, json }`. `target` is the raw path with query. */
export function send({ method, target: pathAndQuery, body = '', headers = {}, base = target.http }) {
  const url = new URL(base);
  const client = url.protocol === 'https:' ? https : http;
  const options = {
    method,
    host: url.hostname,
    port: url.port || undefined,
    path: pathAndQuery,
    headers: { ...(body === '' ? {} : { 'content-length': Buffer.byteLength(body) }), ...headers },
  };
  return new Promise((resolve, reject) => {
    const request = client.request(options, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({
          status: response.statusCode,
          headers: response.headers,
          text,
          get json() { return JSON.parse(text); },
        });
      });
    });
    request.setTimeout(15_000, () => request.destroy(new Error(`no answer to ${method} ${pathAndQuery}`)));
    request.on('error', reject);
    request.end(body);
  });
}

/** A signed request below `/apps/{id}`. `body` may be text or a value to encode; `prefix` is not signed. */
export function api(method, subPath, { body = '', params, auth, headers, app = defaultApp, base, prefix = '' } = {}) {
  const path = `/apps/${app.id}${subPath}`;
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const query = signedQuery({ method, path, body: text, params, auth, app });
  const type = text === '' ? {} : { 'content-type': 'application/json' };
  return send({ method, target: `${prefix}${path}?${plainQuery(query)}`, body: text, headers: { ...type, ...headers }, base });
}

/** Publishes one event and insists that the server took it. */
export async function publish(channels, name, data, { app, base, ...more } = {}) {
  const body = { name, data: typeof data === 'string' ? data : JSON.stringify(data), channels: [].concat(channels), ...more };
  const reply = await api('POST', '/events', { body, app, base });
  if (reply.status !== 200) throw new Error(`publish to ${channels}: ${reply.status} ${reply.text}`);
  return reply;
}
