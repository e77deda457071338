// The judge of frames by itself, without pusher-js and without time.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Cursor } from '../dist/esm/cursor.js';

const SOCKET = '1.1';

/** A cursor whose subscription was answered. */
function answered(replay, options = {}, stored) {
  const cursor = new Cursor(options, stored);
  const asked = cursor.request(SOCKET);
  const judgement = succeed(cursor, replay);
  return { cursor, asked, judgement };
}

const succeed = (cursor, replay) => cursor.judge({ event: 'pusher_internal:subscription_succeeded', replay }, 0);
const resume = (cursor, replay) => cursor.judge({ event: 'pusher_internal:replay_resumed', replay }, 0);
const live = (serial, epoch = 'log.1') => answered({ v: 1, epoch, serial });
const done = (cursor, serial) => cursor.judge({ event: 'pusher_internal:replay_done', serial }, 0);

/** What becomes of a message; its callbacks return at once. */
function message(cursor, serial, more = {}, nowMs = 0) {
  const { deliver, advance, repair, notice } = cursor.judge({ event: 'order.paid', serial, ...more }, nowMs);
  if (advance) cursor.position = advance;
  return repair ? 'repair' : notice ? [deliver, notice.data] : deliver;
}

const verdicts = (cursor, serials) => serials.map((serial) => message(cursor, serial));

describe('live', () => {
  test('messages are taken in order, each once', () => {
    const { cursor, asked } = live(4);
    assert.deepEqual(asked, { v: 1 });
    assert.deepEqual(verdicts(cursor, [5, 5, 6, 4, 6, 7]), [true, false, true, false, false, true]);
    assert.equal(cursor.text, 'log.1:7');
  });

  test('a message is not had before its callbacks have returned', () => {
    const { cursor } = live(4);
    cursor.judge({ event: 'order.paid', serial: 5 }, 0);
    assert.equal(cursor.text, 'log.1:4');
  });

  test('frames without a serial say nothing', () => {
    const { cursor } = live(4);
    for (const frame of [{}, { serial: '9' }, { serial: 2 ** 60 }, { serial: 1.5 }, { serial: null }]) {
      assert.deepEqual(cursor.judge({ event: 'client-typing', ...frame }, 0), { deliver: true });
    }
    assert.equal(cursor.text, 'log.1:4');
  });

  test('what was left out for this subscriber is no gap', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 9, { prev: 4 }), true);
    assert.equal(message(cursor, 12, { prev: 8 }), true, 'the server remembers less than we have');
    assert.equal(cursor.text, 'log.1:12');
  });

  test('a new generation of the log is taken along', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 5, { epoch: 'log.2' }), true);
    assert.deepEqual(verdicts(cursor, [5, 6]), [false, true]);
    assert.equal(cursor.text, 'log.2:6');
    assert.equal(message(cursor, 3, { epoch: 'log.1' }), false, 'an old message of an old generation is a repeat');
  });

  test('another log, or one that went back, without a word from the server', () => {
    const rolledBack = live(9).cursor;
    assert.deepEqual(message(rolledBack, 7, { epoch: 'log.2' }), [true, { reason: 'rolled_back' }]);
    assert.equal(rolledBack.text, 'log.2:7');
    const other = live(9).cursor;
    assert.deepEqual(message(other, 1, { epoch: 'other.1' }), [true, { reason: 'stream_reset' }]);
    assert.equal(other.text, 'other.1:1');
  });

  test('the server resets a subscriber that is ahead of the log', () => {
    const { cursor } = live(9);
    const frame = { event: 'pusher_internal:replay_reset', epoch: 'log.2', serial: 7, reason: 'rolled_back' };
    assert.deepEqual(cursor.judge(frame, 0).notice, { event: 'tidewire:resync', data: { reason: 'rolled_back' } });
    assert.deepEqual(verdicts(cursor, [7, 8]), [false, true]);
  });

  test('a message that the log cannot give back is told of', () => {
    const { cursor } = live(4);
    const { notice, advance } = cursor.judge({ event: 'pusher_internal:replay_skip', serial: 5 }, 0);
    assert.deepEqual(notice.data, { reason: 'unreadable' });
    assert.deepEqual(advance, { epoch: 'log.1', serial: 5 });
  });
});

describe('a gap', () => {
  test('is repaired from where we are, and what comes meanwhile comes again', () => {
    const { cursor } = live(4);
    assert.deepEqual(verdicts(cursor, [5, 8, 9]), [true, 'repair', false]);
    assert.deepEqual(cursor.repair(), { v: 1, from: 'log.1:5', not_from: SOCKET });
    done(cursor, 9);
    assert.deepEqual(resume(cursor, { v: 1, epoch: 'log.1', serial: 9, recovered: true, count: 4 }), { deliver: true });
    assert.deepEqual(verdicts(cursor, [6, 7, 8, 9]), [true, true, true, true]);
    assert.deepEqual(done(cursor, 9).notice, { event: 'tidewire:recovered', data: { count: 4 } });
    assert.deepEqual(verdicts(cursor, [10]), [true]);
  });

  test('that the log has, too, is told of once', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 6), 'repair');
    resume(cursor, { v: 1, epoch: 'log.1', serial: 6, recovered: true, count: 1 });
    assert.deepEqual(message(cursor, 6), [true, { reason: 'gap' }]);
    assert.deepEqual(verdicts(cursor, [7, 8]), [true, true]);
    assert.equal(message(cursor, 10), 'repair', 'another one is repaired again');
  });

  test('whose messages are trimmed meanwhile', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 9), 'repair');
    const { notice } = resume(cursor, { v: 1, epoch: 'log.1', serial: 9, recovered: false, reason: 'expired', oldest: 8 });
    assert.deepEqual(notice.data, { reason: 'expired', oldest: 8 });
    assert.deepEqual(verdicts(cursor, [10]), [true]);
  });

  test('in a replay keeps what was counted', () => {
    const { cursor } = answered({ v: 1, epoch: 'log.1', serial: 9, recovered: true }, { from: 'log.1:4' });
    assert.deepEqual(verdicts(cursor, [5, 6, 8]), [true, true, 'repair']);
    resume(cursor, { v: 1, epoch: 'log.1', serial: 9, recovered: true });
    assert.deepEqual(verdicts(cursor, [7, 8, 9]), [true, true, true]);
    assert.equal(done(cursor, 9).notice.data.count, 5);
  });

  test('is given up when the server does not answer', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 6, {}, 1_000), 'repair');
    assert.equal(message(cursor, 7, {}, 15_999), false);
    assert.deepEqual(message(cursor, 8, {}, 16_000), [true, { reason: 'gap' }]);
    assert.deepEqual(verdicts(cursor, [9]), [true]);
  });
});

describe('coming back', () => {
  test('everything is had, also what was left out at the end', () => {
    const { cursor } = live(4);
    assert.deepEqual(cursor.request('1.2'), { v: 1, from: 'log.1:4', not_from: SOCKET });
    assert.deepEqual(succeed(cursor, { v: 1, epoch: 'log.2', serial: 8, recovered: true, count: 2 }), { deliver: true });
    assert.equal(cursor.text, 'log.1:4');
    assert.equal(message(cursor, 5), true);
    assert.equal(message(cursor, 7, { prev: 5, epoch: 'log.2' }), true);
    assert.deepEqual(done(cursor, 8).notice.data, { count: 2 });
    assert.equal(cursor.text, 'log.2:8');
  });

  test('until everything is had, the connection that is left out is the one that had everything', () => {
    const { cursor } = live(4);
    cursor.request('1.2');
    succeed(cursor, { v: 1, epoch: 'log.1', serial: 8, recovered: true });
    message(cursor, 5);
    assert.deepEqual(cursor.request('1.3'), { v: 1, from: 'log.1:5', not_from: SOCKET });
    succeed(cursor, { v: 1, epoch: 'log.1', serial: 5, recovered: true, count: 0 });
    assert.deepEqual(done(cursor, 5).notice.data, { count: 0 });
    assert.equal(cursor.request('1.4').not_from, '1.3');
  });

  test('messages that overtake the end of the replay are kept', () => {
    const { cursor } = live(4);
    cursor.request('1.2');
    succeed(cursor, { v: 1, epoch: 'log.1', serial: 5, recovered: true, count: 1 });
    assert.deepEqual(verdicts(cursor, [5, 6]), [true, true]);
    assert.deepEqual(done(cursor, 5).notice.data, { count: 1 });
    assert.equal(cursor.text, 'log.1:6');
  });

  test('too late goes on live and is told of', () => {
    for (const reason of ['expired', 'rolled_back', 'stream_reset', 'too_many']) {
      const { cursor } = live(4);
      cursor.request('1.2');
      const { notice } = succeed(cursor, { v: 1, epoch: 'new.1', serial: 99, recovered: false, reason, oldest: 90 });
      assert.deepEqual(notice, { event: 'tidewire:resync', data: { reason, oldest: 90 } });
      assert.equal(cursor.text, 'new.1:99');
      assert.deepEqual(verdicts(cursor, [99, 100]), [false, true]);
    }
  });

  test('to a server that has lost its voice is told of, and stays passive', () => {
    for (const replay of [undefined, { v: 1, recovered: false, reason: 'disabled' }]) {
      const { cursor } = live(4);
      cursor.request('1.2');
      assert.deepEqual(succeed(cursor, replay).notice.data, { reason: 'disabled' });
      assert.equal(cursor.text, undefined);
      assert.deepEqual(verdicts(cursor, [1, 9, 1]), [true, true, true]);
      assert.deepEqual(cursor.request('1.3'), { v: 1 });
      assert.deepEqual(succeed(cursor, replay), { deliver: true }, 'there is nothing to lose');
    }
  });

  test('frames of an earlier subscription do not count', () => {
    const { cursor } = live(4);
    cursor.request('1.1');
    assert.deepEqual(verdicts(cursor, [9, 3]), [true, true]);
    assert.equal(cursor.text, 'log.1:4');
  });
});

describe('a first subscription', () => {
  test('to a server that gives no positions is passive', () => {
    for (const replay of [undefined, { v: 1, recovered: false, reason: 'disabled' }, {}]) {
      const { cursor, judgement } = answered(replay);
      assert.deepEqual(judgement, { deliver: true });
      assert.deepEqual(verdicts(cursor, [7, 7, 2]), [true, true, true]);
      assert.equal(cursor.text, undefined);
    }
  });

  test('may begin in the past', () => {
    for (const rewind of [{ count: 3 }, { seconds: 60 }, 'earliest']) {
      const { cursor, asked } = answered({ v: 1, epoch: 'log.2', serial: 9, recovered: true, count: 3 }, { rewind });
      assert.deepEqual(asked, { v: 1, rewind });
      assert.deepEqual(verdicts(cursor, [7, 8, 8, 9]), [true, true, false, true]);
      assert.equal(done(cursor, 9).notice.data.count, 3);
      assert.equal(cursor.text, 'log.2:9');
      assert.deepEqual(cursor.request('1.2'), { v: 1, from: 'log.2:9', not_from: SOCKET });
    }
  });

  test('rewinds again when the connection was lost before the first message, and not after', () => {
    const { cursor } = answered({ v: 1, epoch: 'log.1', serial: 9, recovered: true }, { rewind: 'earliest' });
    assert.deepEqual(cursor.request('1.2'), { v: 1, rewind: 'earliest' });
    succeed(cursor, { v: 1, epoch: 'log.1', serial: 9, recovered: true });
    assert.equal(message(cursor, 5), true);
    assert.deepEqual(cursor.request('1.3'), { v: 1, from: 'log.1:5' });
  });

  test('rewinds an empty log', () => {
    const { cursor } = answered({ v: 1, epoch: 'log.1', serial: 0, recovered: true, count: 0 }, { rewind: 'earliest' });
    assert.equal(done(cursor, 0).notice.data.count, 0);
    assert.deepEqual(verdicts(cursor, [1, 2]), [true, true]);
  });

  test('that wanted the past of a channel without one is told', () => {
    const { cursor, judgement } = answered({ v: 1, recovered: false, reason: 'disabled' }, { rewind: 'earliest' });
    assert.deepEqual(judgement.notice.data, { reason: 'disabled' });
    assert.deepEqual(cursor.request('1.2'), { v: 1 });
  });

  test('begins at the position of the page, else at the stored one', () => {
    const options = { from: 'log.1:4', rewind: 'earliest' };
    assert.deepEqual(new Cursor(options, 'log.1:2').request(SOCKET), { v: 1, from: 'log.1:4' });
    assert.deepEqual(new Cursor({ from: null, rewind: 'earliest' }, 'log.1:2').request(SOCKET), { v: 1, from: 'log.1:2' });
    assert.deepEqual(new Cursor({ rewind: 'earliest' }, 'garbage').request(SOCKET), { v: 1, rewind: 'earliest' });
  });

  test('does not begin anywhere else', () => {
    for (const from of ['log.1', '4', 'log.1:', ':4', 'log:4', 'log.1:-4', `log.1:${2 ** 60}`, 'a b.1:4']) {
      assert.throws(() => new Cursor({ from }), /not a position/);
    }
  });
});

describe('a refusal', () => {
  const refuse = (cursor, data) => cursor.judge({ event: 'pusher:subscription_error', data }, 0);
  const gone = { type: 'ReplayGone', status: 410, reason: 'expired', oldest: 3 };

  test('because messages are gone leads to a live subscription, the next time', () => {
    for (const data of [gone, JSON.stringify(gone)]) {
      const cursor = new Cursor({ onGap: 'reject', rewind: 'earliest' }, 'log.1:1');
      assert.deepEqual(cursor.request(SOCKET), { v: 1, from: 'log.1:1', on_gap: 'reject' });
      const { refused, notice } = refuse(cursor, data);
      assert.equal(refused, true);
      assert.deepEqual(notice.data, { reason: 'expired', oldest: 3 });
      assert.equal(cursor.text, undefined);
      assert.deepEqual(cursor.request(SOCKET), { v: 1, on_gap: 'reject' });
    }
  });

  test('of a position that makes no sense to the server', () => {
    const cursor = new Cursor({}, 'log.1:1');
    cursor.request(SOCKET);
    assert.deepEqual(refuse(cursor, { type: 'ReplayInvalid', status: 400 }).notice.data, { reason: 'invalid' });
    assert.deepEqual(cursor.request(SOCKET), { v: 1 });
  });

  test('of a rewind is for the developer to see', () => {
    const cursor = new Cursor({ rewind: { count: 1e9 } });
    cursor.request(SOCKET);
    assert.deepEqual(refuse(cursor, { type: 'ReplayInvalid', status: 400 }), { deliver: true, refused: true });
  });

  test('for now keeps the position', () => {
    const cursor = new Cursor({}, 'log.1:1');
    cursor.request(SOCKET);
    const refusal = { type: 'ReplayUnavailable', status: 503 };
    assert.deepEqual(refuse(cursor, refusal), { deliver: true, refused: true, retry: true });
    assert.deepEqual(cursor.request(SOCKET), { v: 1, from: 'log.1:1' });
  });

  test('of a repair leaves the subscription', () => {
    const { cursor } = live(4);
    assert.equal(message(cursor, 6), 'repair');
    assert.deepEqual(refuse(cursor, { type: 'ReplayUnavailable' }), { deliver: true, refused: false, retry: true });
    assert.equal(message(cursor, 7), false);
    const { refused, notice } = refuse(cursor, gone);
    assert.equal(refused, false);
    assert.equal(notice.data.reason, 'expired');
    assert.deepEqual(verdicts(cursor, [9, 10]), [true, true]);
  });

  test('that has nothing to do with replay', () => {
    const { cursor } = live(4);
    for (const data of [{ type: 'AuthError', status: 401 }, null, 'text', '{', undefined, 7]) {
      assert.deepEqual(refuse(cursor, data), { deliver: true });
    }
    assert.equal(cursor.text, 'log.1:4');
  });
});
