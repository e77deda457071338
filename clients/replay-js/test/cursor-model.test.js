// Random runs of a cursor against a small model of the server, over a link that loses and repeats messages.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cursor } from '../dist/esm/cursor.js';

const RUNS = 2_000;
const STEPS = 120;

/** Mulberry32: the same seed gives the same run. */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

class Run {
  head = 0;
  floor = 1;
  generation = 1;
  connections = 0;
  /** Last serial the server sent to this subscriber, lost or not. */
  sent = 0;
  /** What the callbacks saw, and after which serials they were told to fetch. */
  seen = [];
  resyncs = [];
  /** Which connection a serial is not meant for. */
  excluded = new Map();
  generations = new Map([[1, 1]]);

  constructor(seed, { isLossy }) {
    this.random = randomFrom(seed);
    this.isLossy = isLossy;
    this.cursor = new Cursor({ rewind: 'earliest' });
    this.connect();
  }

  connect() {
    this.connections += 1;
    this.socket = `1.${this.connections}`;
    this.answer('pusher_internal:subscription_succeeded', this.cursor.request(this.socket));
  }

  answer(event, { from, rewind, not_from: notFrom }) {
    const head = { v: 1, epoch: `log.${this.generation}`, serial: this.head };
    const after = from === undefined ? this.floor - 1 : Number(from.split(':')[1]);
    const isKept = (from !== undefined || rewind !== undefined) && after + 1 >= this.floor;
    this.deliver({ event, replay: isKept ? { ...head, recovered: true } : { ...head, recovered: false, reason: 'expired' } });
    if (!isKept) {
      this.sent = this.head;
      return;
    }
    this.sent = after;
    const end = this.head;
    this.isLastLost = false;
    for (let serial = after + 1; serial <= end; serial += 1) this.message(serial, notFrom);
    // Nothing would tell that the last message is missing: a link that loses it, loses what follows.
    if (!this.isLastLost) this.deliver({ event: 'pusher_internal:replay_done', serial: end });
  }

  message(serial, notFrom) {
    const excluded = this.excluded.get(serial);
    if (excluded !== undefined && (excluded === this.socket || excluded === notFrom)) return;
    const epoch = this.generations.get(serial);
    const frame = {
      event: 'order.paid',
      serial,
      ...(this.sent !== serial - 1 && { prev: this.sent }),
      ...(epoch && { epoch: `log.${epoch}` }),
    };
    this.sent = serial;
    this.isLastLost = this.isLossy && this.random() < 0.05;
    if (this.isLastLost) return;
    this.deliver(frame);
    if (this.isLossy && this.random() < 0.05) this.deliver(frame);
  }

  deliver(frame) {
    const { deliver, advance, repair, notice } = this.cursor.judge(frame, 0);
    if (notice?.event === 'tidewire:resync') this.resyncs.push(this.seen.length);
    if (deliver && frame.event === 'order.paid') this.seen.push(frame.serial);
    if (advance) this.cursor.position = advance;
    // A real answer comes after what is on its way; then everything up to it is dropped or a repeat.
    if (repair) this.pendingRepair = true;
  }

  publish() {
    this.head += 1;
    if (this.random() < 0.1) this.excluded.set(this.head, this.socket);
    this.message(this.head);
  }

  step() {
    const dice = this.random();
    if (dice < 0.7) this.publish();
    else if (dice < 0.8) this.missWhileAway();
    else if (dice < 0.82) this.floor = Math.min(this.head + 1, this.floor + Math.floor(this.random() * 8));
    else if (dice < 0.84) this.restart();
    if (this.pendingRepair && this.random() < 0.5) this.answerRepair();
  }

  missWhileAway() {
    this.pendingRepair = false;
    const count = Math.floor(this.random() * 4);
    for (let missed = 0; missed < count; missed += 1) this.head += 1;
    this.connect();
  }

  restart() {
    this.generation += 1;
    this.generations.set(this.head + 1, this.generation);
    this.missWhileAway();
  }

  answerRepair() {
    this.pendingRepair = false;
    this.answer('pusher_internal:replay_resumed', this.cursor.repair());
  }

  finish() {
    this.isLossy = false;
    while (this.pendingRepair) this.answerRepair();
    this.connect();
    return this;
  }
}

function play(seed, options) {
  const run = new Run(seed, options);
  for (let step = 0; step < STEPS; step += 1) run.step();
  return run.finish();
}

/** In order and once; what is left out was not for us, or we were told. */
function assertComplete(run, seed) {
  let last = run.seen[0] - 1;
  run.seen.forEach((serial, index) => {
    assert.ok(serial > last, `seed ${seed}: ${serial} after ${last}`);
    for (let left = last + 1; left < serial; left += 1) {
      const isMeant = !run.excluded.has(left);
      assert.ok(!isMeant || run.resyncs.includes(index), `seed ${seed}: ${left} was missed in silence`);
    }
    last = serial;
  });
  assert.equal(Number(run.cursor.text.split(':')[1]), run.head, `seed ${seed}: the end was not reached`);
}

for (const isLossy of [false, true]) {
  test(`${RUNS} random runs over a ${isLossy ? 'lossy' : 'true'} link miss nothing in silence`, () => {
    for (let seed = 1; seed <= RUNS; seed += 1) assertComplete(play(seed, { isLossy }), seed);
  });
}

test('a run without trimming never has to fetch', () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const run = new Run(seed, { isLossy: false });
    for (let step = 0; step < STEPS; step += 1) if (run.random() < 0.8) run.publish(); else run.missWhileAway();
    assert.deepEqual(run.finish().resyncs, [], `seed ${seed}`);
    assertComplete(run, seed);
  }
});
