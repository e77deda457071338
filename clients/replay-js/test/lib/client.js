// A client with replay, and what its channels tell.
import { withReplay } from 'tidewire-replay';
import { Inbox } from './inbox.js';
import { newest } from './releases.js';

/** The options that lead pusher-js of any release to `server`. */
export function address({ port }) {
  return {
    cluster: '',
    wsHost: '127.0.0.1',
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws'],
    enableStats: false,
  };
}

const authorizer = () => ({
  authorize: (socketId, callback) => callback(null, { auth: `key:${socketId}`, channel_data: '{"user_id":"u-1"}' }),
});

export function start(t, server, { release = newest, replay, ...options } = {}) {
  const Pusher = withReplay(release.load(), replay);
  return tidy(t, new Pusher('key', { ...address(server), authorizer, ...options }));
}

/** A socket of pusher-js that is closed twice leaves a timer of 30 s that keeps the process alive. */
export function tidy(t, pusher) {
  const sockets = new Set();
  pusher.connection.bind('state_change', () => {
    const socket = pusher.connection.connection?.transport?.socket;
    if (socket) sockets.add(socket);
  });
  t.after(() => {
    pusher.disconnect();
    for (const socket of sockets) clearTimeout(socket._closeTimer);
  });
  return pusher;
}

/** Subscribes; everything that the channel tells comes as `[event, data]`, messages as their numbers. */
export function follow(pusher, name) {
  return heard(pusher.subscribe(name));
}

export function heard(channel) {
  const inbox = new Inbox(`the events of ${channel.name}`);
  channel.bind_global((event, data) => {
    if (event === 'counted') inbox.push(data.n);
    else if (event === 'pusher:subscription_succeeded') inbox.push(event);
    else inbox.push([event, data]);
  });
  return inbox;
}
