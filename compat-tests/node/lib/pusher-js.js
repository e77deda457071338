// pusher-js in every release line, wired to the server under test.
import { createRequire } from 'node:module';
import { app as defaultApp, target } from './target.js';
import { Inbox, within } from './wait.js';

const require = createRequire(import.meta.url);

/** Newest first; the names are npm aliases of this package. */
export const releases = ['pusher-js', 'pusher-js-7', 'pusher-js-6', 'pusher-js-5', 'pusher-js-4'].map((name) => {
  const { version } = require(`${name}/package.json`);
  return { version, major: Number.parseInt(version, 10), Pusher: require(name) };
});

/** Releases that know sign-in, user channels and watch-lists. */
export const withUsers = releases.filter(({ major }) => major >= 7);

/** The options of pusher-js that point it at the server under test. */
export function addressOptions({ host = target.wsHost, port = target.wsPort } = {}) {
  return {
    cluster: '',
    wsHost: host,
    wsPort: port,
    wssPort: port,
    forceTLS: target.tls,
    enabledTransports: ['ws', 'wss'],
  };
}

/**
 * A pusher-js client that is already connecting. `endpoint` is an auth endpoint, `params` go to it, `address`
 * leads somewhere else than straight to the server; the rest are options of pusher-js.
 */
export function startClient(t, { Pusher, major }, { app = defaultApp, endpoint, params = {}, address, ...options } = {}) {
  const authorization = endpoint && {
    ...(major >= 8
      ? { channelAuthorization: { endpoint: endpoint.channelUrl, transport: 'ajax', params } }
      : { authEndpoint: endpoint.channelUrl, authTransport: 'ajax', auth: { params } }),
    userAuthentication: { endpoint: endpoint.userUrl, transport: 'ajax', params },
  };
  const sockets = recordSockets(Pusher);
  const pusher = new Pusher(app.key, {
    ...addressOptions(address),
    ...(major < 8 ? { disableStats: true } : {}),
    ...authorization,
    ...options,
  });
  pusher.tidewire = { states: new Inbox('the states of pusher-js'), errors: new Inbox('the errors of pusher-js') };
  pusher.connection.bind('state_change', ({ current }) => pusher.tidewire.states.push(current));
  pusher.connection.bind('error', (error) => pusher.tidewire.errors.push(error));
  t.after(() => {
    pusher.disconnect();
    for (const socket of sockets) clearTimeout(socket._closeTimer);
  });
  return pusher;
}

/** The WebSocket of Node releases, closed twice, leaves a timer of 30 s behind that keeps the process alive. */
function recordSockets({ Runtime }) {
  const original = (Runtime.tidewireOriginal ??= Runtime.createWebSocket);
  const sockets = (Runtime.tidewireSockets ??= []);
  Runtime.createWebSocket = function createWebSocket(url) {
    const socket = original.call(this, url);
    sockets.push(socket);
    return socket;
  };
  return sockets;
}

/** Waits until the client is in this state. */
export async function reaches(pusher, state) {
  if (pusher.connection.state === state) return;
  const arrival = new Promise((resolve) => {
    const look = ({ current }) => {
      if (current !== state) return;
      pusher.connection.unbind('state_change', look);
      resolve();
    };
    pusher.connection.bind('state_change', look);
  });
  await within(arrival, `pusher-js to be ${state} (it is ${pusher.connection.state})`);
}

export async function connectClient(t, release, options) {
  const pusher = startClient(t, release, options);
  await reaches(pusher, 'connected');
  return pusher;
}

/** Waits until the server has read all that this client has sent. */
export async function settled(pusher) {
  const frames = framesOf(pusher);
  pusher.send_event('pusher:ping', {});
  await frames.until(({ event }) => event === 'pusher:pong', 'a pong');
}

/** Everything a channel tells its listeners, as `{ name, data }`. */
export function eventsOf(channel) {
  const inbox = new Inbox(`the events of ${channel.name}`);
  channel.bind_global((name, data) => inbox.push({ name, data }));
  return inbox;
}

/** Every decoded frame of a client, internal ones included. */
export function framesOf(pusher) {
  const inbox = new Inbox('the frames of pusher-js');
  pusher.connection.bind('message', (frame) => inbox.push(frame));
  return inbox;
}

/** Subscribes and waits for the server's yes; resolves to the channel with an inbox of what followed. */
export async function join(pusher, name) {
  const channel = pusher.subscribe(name);
  const events = eventsOf(channel);
  const first = await events.next(`subscription_succeeded of ${name}`);
  if (first.name !== 'pusher:subscription_succeeded') {
    throw new Error(`${name}: expected success, got ${JSON.stringify(first)}`);
  }
  return { channel, events, first: first.data };
}

/** The Pusher error code in any of the shapes the releases have used. */
export function codeOf(error) {
  return (error?.error?.data ?? error?.data ?? error?.error)?.code;
}

/** Takes errors until one has this code. */
export function errorWithCode(pusher, code) {
  return pusher.tidewire.errors.until((error) => codeOf(error) === code, `an error with code ${code}`);
}
