// Waiting with a deadline, so that a lost event is a named failure instead of a stuck run.

const DEADLINE_SECONDS = 10;

/** The first `event` of a pusher-js emitter (a channel or a connection). */
export function once(emitter, event) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${event} in ${DEADLINE_SECONDS} s`)), DEADLINE_SECONDS * 1000);
    emitter.bind(event, function first(data) {
      clearTimeout(late);
      emitter.unbind(event, first);
      resolve(data);
    });
  });
}
