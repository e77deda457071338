// Clients with replay against a server of our own.
import { createRequire } from 'node:module';
import { withReplay } from 'tidewire-replay';
import { Inbox, within } from '../../node/lib/wait.js';
import { stored } from './server.js';

const require = createRequire(import.meta.url);

export const releases = ['pusher-js', 'pusher-js-7'].map((name) => ({
  version: require(`${name}/package.json`).version,
  major: Number.parseInt(require(`${name}/package.json`).version, 10),
  Pusher: require(name),
}));

export const { Pusher } = releases[0];

export const SUCCEEDED = 'pusher:subscription_succeeded';

/** The options that lead pusher-js and Echo to a server or to a door in front of it. */
export function address({ host, port }) {
  return { cluster: '', wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ['ws'], enableStats: false };
}

function authorization({ channelUrl, userUrl }, params) {
  return {
    channelAuthorization: { endpoint: channelUrl, transport: 'ajax', params },
    userAuthentication: { endpoint: userUrl, transport: 'ajax', params },
  };
}

/** A client that is connecting. `endpoint` is an auth endpoint, `params` go to it; `replay: false` is a stock client. */
export function start(t, where, { release = releases[0], replay, endpoint, params = {}, app = stored } = {}) {
  const Class = replay === false ? release.Pusher : withReplay(release.Pusher, replay);
  return tidy(t, new Class(app.key, { ...address(where), ...(endpoint && authorization(endpoint, params)) }));
}

/** A socket of pusher-js that is closed twice leaves a timer of 30 s that keeps the process alive. */
export function tidy(t, pusher) {
  const sockets = new Set();
  pusher.connection.bind('state_change', () => {
    const socket = pusher.connection.connection?.transport.socket;
    if (socket) sockets.add(socket);
  });
  t.after(() => {
    pusher.disconnect();
    for (const socket of sockets) clearTimeout(socket._closeTimer);
  });
  return pusher;
}

/** What a channel tells: messages as their numbers, success by its name, the rest as `[event, data]`. */
export function heard(channel, name = channel.name) {
  const inbox = new Inbox(`the events of ${name}`);
  channel.bind_global((event, data) => {
    if (event === 'counted') inbox.push(data.n);
    else inbox.push(event === SUCCEEDED ? event : [event, data]);
  });
  return inbox;
}

/** Subscribes and waits for the server's yes. */
export async function join(pusher, name) {
  const channel = pusher.subscribe(name);
  const events = heard(channel);
  const first = await events.next(`${SUCCEEDED} of ${name}`);
  if (first !== SUCCEEDED) throw new Error(`${name}: expected success, got ${JSON.stringify(first)}`);
  return { channel, events };
}

export async function take(events, count) {
  const taken = [];
  while (taken.length < count) {
    taken.push(await events.next(`${count} of ${events.name}, after ${JSON.stringify(taken)}`));
  }
  return taken;
}

function change(pusher, is, what) {
  return within(new Promise((resolve) => {
    pusher.connection.bind('state_change', function look(states) {
      if (!is(states)) return;
      pusher.connection.unbind('state_change', look);
      resolve();
    });
  }), what);
}

/** Resolves when the connection that is there was lost. */
export const lost = (pusher) => change(pusher, ({ previous }) => previous === 'connected', 'the connection to be lost');

export async function connected(pusher) {
  if (pusher.connection.state === 'connected') return;
  await change(pusher, ({ current }) => current === 'connected', 'a connection');
}

export const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);
