// What the tests see of a page: every event under a name, in order, in memory and on the screen.
/* global Pusher */
const probe = {
  notes: [],
  note(name, data) {
    const value = data === undefined ? null : JSON.parse(JSON.stringify(data));
    probe.notes.push({ name, data: value });
    const line = document.createElement('li');
    line.textContent = `${name} ${JSON.stringify(value)}`;
    document.getElementById('log').append(line);
  },
  show(id, text) {
    const place = document.getElementById(id);
    if (place) place.textContent = text;
  },
  watch(pusher) {
    probe.pusher = pusher;
    pusher.connection.bind('state_change', ({ current }) => {
      probe.show('state', current);
      probe.show('socket', pusher.connection.socket_id ?? '');
      probe.note('state', current);
    });
    pusher.connection.bind('error', (error) => probe.note('error', error));
    pusher.connection.bind('message', ({ event }) => { if (event === 'pusher:pong') probe.note('pong'); });
    return pusher;
  },
  connect(key, options) {
    probe.watch(new Pusher(key, options));
  },
  subscribe(name) {
    probe.pusher.subscribe(name).bind_global((event, data) => probe.note(`${name} ${event}`, data));
  },
};
window.probe = probe;
