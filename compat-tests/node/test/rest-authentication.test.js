// Who may call the HTTP API (specification 9.9).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../lib/raw.js';
import { api, md5, plainQuery, send, signedQuery } from '../lib/rest.js';
import { app, namedApp, skipWithout } from '../lib/target.js';
import { unique } from '../lib/wait.js';

const CHANNELS = `/apps/${app.id}/channels`;
const now = () => Math.floor(Date.now() / 1000);
const event = (channel) => JSON.stringify({ name: 'e', data: 'x', channels: [channel] });

function get(query, path = CHANNELS, headers = {}) {
  return send({ method: 'GET', target: `${path}?${typeof query === 'string' ? query : plainQuery(query)}`, headers });
}

/** Asserts a refusal in plain text. */
function refused(reply, status, text) {
  assert.equal(reply.status, status, reply.text);
  assert.match(reply.text, text);
  assert.match(reply.text, /\n$/);
}

test('S136 a request signed as in the specification is accepted', async (t) => {
  const client = await connect(t);
  const name = unique('shop');
  await client.join(name);
  const body = `{"name":"order.paid","data":"{\\"id\\":7}","channels":["${name}"]}`;
  const path = `/apps/${app.id}/events`;
  const query = `auth_key=${app.key}&auth_timestamp=${now()}&auth_version=1.0&body_md5=${md5(body)}`;
  const signature = app.hmac(`POST\n${path}\n${query}`);
  const reply = await send({ method: 'POST', target: `${path}?${query}&auth_signature=${signature}`, body });
  assert.deepEqual([reply.status, reply.json], [200, {}]);
  assert.deepEqual(await client.next(), { event: 'order.paid', channel: name, data: '{"id":7}' });
});

for (const [seconds, status] of [[-597, 200], [597, 200], [-601, 401], [603, 401]]) {
  test(`S137 a timestamp ${Math.abs(seconds)} s ${seconds < 0 ? 'old' : 'ahead'} is answered ${status}`, async () => {
    const reply = await api('GET', '/channels', { auth: { auth_timestamp: String(now() + seconds) } });
    if (status === 200) assert.equal(reply.status, 200);
    else refused(reply, 401, /^Timestamp expired/);
  });
}

for (const timestamp of [null, '', 'abc', '1e9', '-1']) {
  test(`S137 the timestamp ${timestamp} is refused`, async () => {
    assert.equal((await api('GET', '/channels', { auth: { auth_timestamp: timestamp } })).status, 401);
  });
}

for (const missing of ['auth_key', 'auth_timestamp', 'auth_signature']) {
  test(`S138 a request without ${missing} is refused`, async () => {
    const query = signedQuery({ method: 'GET', path: CHANNELS });
    delete query[missing];
    assert.equal((await get(query)).status, 401);
  });
}

for (const version of [null, '2.0', '']) {
  test(`S139 the auth_version ${version} is refused`, async () => {
    refused(await api('GET', '/channels', { auth: { auth_version: version } }), 401, /^Version/);
  });
}

test('S140 an unknown key is refused by name', async () => {
  refused(await api('GET', '/channels', { auth: { auth_key: 'unknown' } }), 401, /^Unknown auth_key/);
});

test('S141 a key is good for its own app only', { skip: skipWithout('counted') }, async () => {
  const other = namedApp('counted');
  for (const id of [other.id, '999999']) {
    const path = `/apps/${id}/channels`;
    const reply = await get(signedQuery({ method: 'GET', path }), path);
    assert.ok(id === other.id ? reply.status === 401 : [401, 404].includes(reply.status), String(reply.status));
  }
});

test('S142 a changed body, or one without its digest, is refused and nothing is published', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  await client.join(name);
  const path = `/apps/${app.id}/events`;
  const signed = plainQuery(signedQuery({ method: 'POST', path, body: event('another') }));
  assert.equal((await send({ method: 'POST', target: `${path}?${signed}`, body: event(name) })).status, 401);
  const undigested = plainQuery(signedQuery({ method: 'POST', path }));
  assert.equal((await send({ method: 'POST', target: `${path}?${undigested}`, body: event(name) })).status, 401);
  await client.quiet();
});

test('S143 a GET may carry the digest of nothing (Python)', async () => {
  const reply = await api('GET', '/channels', { auth: { body_md5: 'd41d8cd98f00b204e9800998ecf8427e' } });
  assert.equal(reply.status, 200);
});

test('S144 a comma in the query may be raw or escaped', async (t) => {
  const client = await connect(t);
  const name = unique('presence-cache-a');
  await client.join(name, { user_id: 'u-1' });
  const path = `${CHANNELS}/${name}`;
  const query = plainQuery(signedQuery({ method: 'GET', path, params: { info: 'user_count,cache' } }));
  for (const wire of [query, query.replace(',', '%2C'), query.replace(',', '%2c')]) {
    const reply = await get(wire, path);
    assert.equal(reply.status, 200, wire);
    assert.equal(reply.json.user_count, 1);
  }
});

test('S145 parameters may come in any order', async () => {
  const query = signedQuery({ method: 'GET', path: CHANNELS, params: { filter_by_prefix: 'presence-' } });
  const names = Object.keys(query);
  for (const order of [names.toReversed(), names.toSorted(), ['auth_signature', ...names.filter((n) => n !== 'auth_signature')]]) {
    assert.equal((await get(order.map((name) => `${name}=${query[name]}`).join('&'))).status, 200);
  }
});

test('S147 parameter names may be upper case on the wire', async () => {
  const query = signedQuery({ method: 'GET', path: CHANNELS, params: { filter_by_prefix: 'presence-' } });
  const wire = Object.entries(query).map(([name, value]) => `${name.toUpperCase()}=${value}`).join('&');
  assert.equal((await get(wire)).status, 200);
});

test('S148 a channel name in the path may be raw or escaped', async (t) => {
  const client = await connect(t);
  const name = unique('A@b,c;d=e.f');
  await client.join(name);
  const path = `${CHANNELS}/${name}`;
  const escaped = `${CHANNELS}/${encodeURIComponent(name)}`;
  for (const [signed, wire] of [[path, path], [escaped, escaped], [path, escaped]]) {
    const reply = await get(signedQuery({ method: 'GET', path: signed }), wire);
    assert.deepEqual([reply.status, reply.json], [200, { occupied: true }], `${signed} as ${wire}`);
  }
});

test('S149 a wrong signature is answered with what should have been signed, never with the secret', async (t) => {
  const client = await connect(t);
  const name = unique('news');
  await client.join(name);
  const path = `/apps/${app.id}/events`;
  const query = signedQuery({ method: 'POST', path, body: event(name) });
  const { auth_signature: right } = query;
  query.auth_signature = right.replace(/.$/, (digit) => (digit === '0' ? '1' : '0'));
  const reply = await send({ method: 'POST', target: `${path}?${plainQuery(query)}`, body: event(name) });
  refused(reply, 401, /^Invalid signature: you should have sent HmacSHA256Hex\("POST\\n/);
  assert.ok(!reply.text.includes(app.secret) && !reply.text.includes(right));
  await client.quiet();
});

test('S150 errors are text, and JSON for those who accept only that', async () => {
  const query = signedQuery({ method: 'GET', path: CHANNELS, auth: { auth_key: 'unknown' } });
  const plain = await get(query);
  assert.match(plain.headers['content-type'], /^text\/plain/);
  refused(plain, 401, /^Unknown auth_key/);
  const json = await get(query, CHANNELS, { accept: 'application/json' });
  assert.equal(json.status, 401);
  assert.match(json.headers['content-type'], /^application\/json/);
  assert.match(json.json.error, /^Unknown auth_key/);
});
