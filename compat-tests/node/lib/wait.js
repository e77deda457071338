// Waiting for things to happen: every wait has a deadline and says what it waited for.
import { randomBytes } from 'node:crypto';

/** Generous, because a test that passes never waits this long. */
export const DEADLINE_MS = Number(process.env.TIDEWIRE_TEST_DEADLINE_MS ?? 15_000);

/** Settles like `promise`, or fails after the deadline naming what did not happen. */
export function within(promise, what, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${deadlineMs} ms for ${what}`)), deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks `attempt` again and again until it returns something truthy; for state that announces nothing. */
export async function eventually(attempt, what, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const value = await attempt();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${deadlineMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A name nobody else uses, so that suites can share one server. */
export function unique(prefix) {
  return `${prefix}-${randomBytes(6).toString('hex')}`;
}

/** Everything that arrived, in order, handed out one by one. */
export class Inbox {
  #items = [];
  #wake = null;
  #ended = null;

  constructor(name) {
    this.name = name;
  }

  push(item) {
    this.#items.push(item);
    this.#wake?.();
  }

  /** Nothing will come any more, for this reason: whoever waits fails at once. */
  end(reason) {
    this.#ended ??= reason;
    this.#wake?.();
  }

  /** Takes the next item; waits for it if there is none yet. */
  async next(what = `something in ${this.name}`, deadlineMs = DEADLINE_MS) {
    if (this.#items.length === 0 && !this.#ended) {
      const arrival = new Promise((resolve) => { this.#wake = resolve; });
      await within(arrival, what, deadlineMs).finally(() => { this.#wake = null; });
    }
    if (this.#items.length === 0) throw new Error(`${this.#ended} before ${what}`);
    return this.#items.shift();
  }

  /** Takes items up to and including the first that `matches`; returns all of them, so order can be asserted. */
  async until(matches, what = `the awaited item in ${this.name}`, deadlineMs = DEADLINE_MS) {
    const taken = [];
    const end = Date.now() + deadlineMs;
    for (;;) {
      const item = await this.next(
        `${what} (so far: ${JSON.stringify(taken).slice(0, 500)})`,
        Math.max(1, end - Date.now()),
      );
      taken.push(item);
      if (matches(item)) return taken;
    }
  }

  /** Takes what has arrived, without waiting. */
  drain() {
    return this.#items.splice(0);
  }

  get waiting() {
    return this.#items.length;
  }
}
