// Everything that arrived, in order; every wait has a deadline.
const DEADLINE_MS = 10_000;

export class Inbox {
  #items = [];
  #wake = () => {};

  constructor(name) {
    this.name = name;
  }

  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  async next() {
    if (this.#items.length === 0) {
      let timer;
      await new Promise((resolve, reject) => {
        this.#wake = resolve;
        timer = setTimeout(() => reject(new Error(`waited ${DEADLINE_MS} ms for something in ${this.name}`)), DEADLINE_MS);
      }).finally(() => clearTimeout(timer));
    }
    return this.#items.shift();
  }

  async take(count) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next());
    return taken;
  }

  get waiting() {
    return this.#items.length;
  }
}
