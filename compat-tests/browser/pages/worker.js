// pusher-js in a Web Worker: does what the page tells it and reports what it hears.
/* global Pusher */
importScripts('/pusher.worker.js');

const report = (name, data) => postMessage({ name, data: data === undefined ? null : JSON.parse(JSON.stringify(data)) });
let pusher;

onmessage = ({ data: { command, key, options, name, event, payload } }) => {
  if (command === 'connect') {
    pusher = new Pusher(key, options);
    pusher.connection.bind('state_change', ({ current }) => report('state', current));
    pusher.connection.bind('error', (error) => report('error', error));
  }
  if (command === 'subscribe') {
    pusher.subscribe(name).bind_global((heard, value) => report(`${name} ${heard}`, value));
  }
  if (command === 'trigger') pusher.channel(name).trigger(event, payload);
};
