// Where one channel is in its log: judges every frame of the channel. Knows neither pusher-js nor a clock.
import type { ChannelOptions, Rewind } from './options.js';

/** A frame as the server sends it; pusher-js keeps only event, channel, data and user_id. */
export interface Frame {
  event: string;
  channel?: string;
  data?: unknown;
  serial?: number;
  epoch?: string;
  prev?: number;
  reason?: string;
  oldest?: number;
  replay?: Answer;
}

/** What the server says to a subscription that asked for replay. */
interface Answer {
  epoch?: string;
  serial?: number;
  recovered?: boolean;
  reason?: string;
  oldest?: number;
}

/** `epoch` names the log and its generation, as in `k3Jd9Q.2`; `serial` counts its messages. */
export interface Position {
  epoch: string;
  serial: number;
}

/** The member `replay` of `pusher:subscribe`. */
export interface Request {
  v: 1;
  from?: string;
  not_from?: string;
  on_gap?: 'reject';
  rewind?: Rewind;
}

/** An event for the listeners of the channel. */
export type Notice =
  | { event: 'tidewire:recovered'; data: { count: number } }
  | { event: 'tidewire:resync'; data: { reason: string; oldest?: number } };

export interface Judgement {
  /** Whether pusher-js gets to see the frame. */
  deliver: boolean;
  /** Where the channel is once the callbacks have returned. */
  advance?: Position;
  /** Messages are missing: subscribe again with `repair()`. */
  repair?: boolean;
  /** The server refused to subscribe the channel. */
  refused?: boolean;
  /** It could not for now: try again later. */
  retry?: boolean;
  notice?: Notice;
}

/**
 * - `asked`: the answer to a subscription is outstanding; frames are of an earlier one, if of any
 * - `passive`: the server gives this channel no positions
 * - `replaying`: what was missed comes in, up to and with `target`
 * - `repairing`: a message was missing; everything is dropped until the server begins again where we are
 */
type Phase = 'asked' | 'passive' | 'replaying' | 'live' | 'repairing';

const DELIVER: Judgement = { deliver: true };
const DROP: Judgement = { deliver: false };

/** A server that has not answered a repair for so long never will. */
const REPAIR_TIMEOUT_MS = 15_000;

export class Cursor {
  /** Undefined until the server has told one. */
  position: Position | undefined;
  private phase: Phase = 'asked';
  private rewind: Rewind | undefined;
  private readonly onGap: ChannelOptions['onGap'];
  /** Whether the outstanding request wants messages of the past. */
  private wantsPast = false;
  private target: Position | undefined;
  private replayedCount = 0;
  /** The serial after which a repair was asked for, and when. */
  private repairedAfter: number | undefined;
  private repairingSinceMs = 0;
  private socketId: string | undefined;
  /** The connection on which the channel last had everything: what excluded that one is not to be replayed. */
  private heldBy: string | undefined;

  constructor({ from, rewind, onGap }: ChannelOptions, stored?: string | null) {
    const begin = from || stored;
    this.position = begin ? parse(begin) : undefined;
    if (from && !this.position) throw new TypeError(`tidewire-replay: not a position: ${from}`);
    this.rewind = rewind;
    this.onGap = onGap;
  }

  get text(): string | undefined {
    return this.position && `${this.position.epoch}:${this.position.serial}`;
  }

  get isRepairing(): boolean {
    return this.phase === 'repairing';
  }

  /** What a new subscription on the connection `socketId` asks for. */
  request(socketId: string): Request {
    this.socketId = socketId;
    this.phase = 'asked';
    this.replayedCount = 0;
    this.repairedAfter = undefined;
    this.wantsPast = this.position !== undefined || this.rewind !== undefined;
    return {
      v: 1,
      ...(this.position ? this.resume() : this.rewind && { rewind: this.rewind }),
      ...(this.onGap === 'reject' && { on_gap: 'reject' as const }),
    };
  }

  /** What to ask for when messages are missing. Never `reject`: the subscription is to live on. */
  repair(): Request {
    return { v: 1, ...this.resume() };
  }

  private resume(): Pick<Request, 'from' | 'not_from'> {
    return { from: this.text!, ...(this.heldBy && { not_from: this.heldBy }) };
  }

  judge(frame: Frame, nowMs: number): Judgement {
    switch (frame.event) {
      case 'pusher_internal:subscription_succeeded':
        return this.answered(frame.replay);
      case 'pusher_internal:replay_resumed':
        return this.isRepairing ? this.answered(frame.replay) : DELIVER;
      case 'pusher_internal:replay_done':
        return this.phase === 'replaying' ? this.done(frame) : DELIVER;
      case 'pusher_internal:replay_reset':
        return this.reset(frame);
      case 'pusher_internal:replay_skip':
        return this.skipped(frame, nowMs);
      case 'pusher:subscription_error':
        return this.refused(frame.data);
      default:
        return this.message(frame, nowMs);
    }
  }

  private answered(answer: Answer | undefined): Judgement {
    const wantedPast = this.wantsPast;
    this.wantsPast = false;
    const head = positionOf(answer?.epoch, answer?.serial);
    if (!answer || !head) {
      this.forget('passive');
      return { deliver: true, ...(wantedPast && resync(answer?.reason ?? 'disabled', answer?.oldest)) };
    }
    if (answer.recovered === true) {
      this.phase = 'replaying';
      this.target = head;
      return DELIVER;
    }
    this.goLive(head);
    return { deliver: true, ...(wantedPast && resync(answer.reason ?? 'unknown', answer.oldest)) };
  }

  private done({ serial }: Frame): Judgement {
    const target = this.target!;
    const end = { epoch: target.epoch, serial: serial ?? target.serial };
    // Live messages may have overtaken the end of the replay; the last ones may have been none for us.
    this.goLive(this.position && this.position.serial > end.serial ? this.position : end);
    return { deliver: true, notice: { event: 'tidewire:recovered', data: { count: this.replayedCount } } };
  }

  private reset({ epoch, serial, reason, oldest }: Frame): Judgement {
    const position = positionOf(epoch, serial);
    if (!position || this.phase === 'asked' || this.phase === 'passive') return DELIVER;
    if (this.isRepairing) this.position = position;
    else this.goLive(position);
    return { deliver: true, ...resync(reason ?? 'unknown', oldest) };
  }

  private skipped(frame: Frame, nowMs: number): Judgement {
    const judgement = this.step(frame, nowMs);
    return judgement.advance ? { ...judgement, ...resync('unreadable') } : judgement;
  }

  private refused(data: unknown): Judgement {
    const { type, reason, oldest } = objectOf(data) as { type?: string; reason?: string; oldest?: number };
    if (type === 'ReplayUnavailable') return { deliver: true, refused: !this.isRepairing, retry: true };
    if (type !== 'ReplayGone' && type !== 'ReplayInvalid') return DELIVER;
    const refused = !this.isRepairing;
    const hadPosition = this.position !== undefined;
    this.forget(refused ? 'asked' : 'live');
    const isLost = type === 'ReplayGone' || hadPosition;
    return { deliver: true, refused, ...(isLost && resync(reason ?? 'invalid', oldest)) };
  }

  private message(frame: Frame, nowMs: number): Judgement {
    const judgement = this.step(frame, nowMs);
    const { advance } = judgement;
    if (advance && this.phase === 'replaying' && advance.serial <= this.target!.serial) this.replayedCount += 1;
    return judgement;
  }

  /** Whether a frame with a serial is the next one. */
  private step({ serial, prev, epoch }: Frame, nowMs: number): Judgement {
    if (!isSerial(serial) || this.phase === 'asked' || this.phase === 'passive') return DELIVER;
    const here = this.position;
    const advance = { epoch: epoch ?? here?.epoch ?? this.target?.epoch ?? '', serial };
    // The first of a rewind is wherever the log begins.
    if (!here) return { deliver: true, advance };
    if (this.isRepairing) {
      if (nowMs - this.repairingSinceMs < REPAIR_TIMEOUT_MS) return DROP;
      this.phase = 'live';
      return { deliver: true, advance, ...resync('gap') };
    }
    const loss = lossBetween(here, advance);
    if (loss) return { deliver: true, advance, ...resync(loss) };
    if (serial <= here.serial) return DROP;
    if (serial === here.serial + 1 || (prev !== undefined && prev <= here.serial)) return { deliver: true, advance };
    return this.gap(here, advance, nowMs);
  }

  private gap(here: Position, advance: Position, nowMs: number): Judgement {
    // The server was asked, and has nothing in between.
    if (this.repairedAfter === here.serial) return { deliver: true, advance, ...resync('gap') };
    if (this.phase === 'live') this.replayedCount = 0;
    this.repairedAfter = here.serial;
    this.repairingSinceMs = nowMs;
    this.phase = 'repairing';
    this.wantsPast = true;
    return { deliver: false, repair: true };
  }

  private goLive(position: Position): void {
    this.phase = 'live';
    this.position = position;
    this.target = undefined;
    this.heldBy = this.socketId;
    this.rewind = undefined;
  }

  private forget(phase: Phase): void {
    this.phase = phase;
    this.position = undefined;
    this.target = undefined;
    this.rewind = undefined;
  }
}

/** What a step between two positions tells of the log, if it is not simply the same log going on. */
function lossBetween(here: Position, next: Position): string | undefined {
  if (here.epoch === next.epoch) return undefined;
  const [log, generation] = here.epoch.split('.');
  const [nextLog, nextGeneration] = next.epoch.split('.');
  if (log !== nextLog) return 'stream_reset';
  return Number(nextGeneration) > Number(generation) && next.serial <= here.serial ? 'rolled_back' : undefined;
}

function resync(reason: string, oldest?: number): { notice: Notice } {
  return { notice: { event: 'tidewire:resync', data: oldest === undefined ? { reason } : { reason, oldest } } };
}

function parse(text: string): Position | undefined {
  const match = /^([0-9A-Za-z]+\.\d+):(\d+)$/.exec(text);
  return match ? positionOf(match[1], Number(match[2])) : undefined;
}

function positionOf(epoch: unknown, serial: unknown): Position | undefined {
  return typeof epoch === 'string' && isSerial(serial) ? { epoch, serial } : undefined;
}

function isSerial(value: unknown): value is number {
  return Number.isSafeInteger(value);
}

/** `data` of a frame is an object, or JSON of one. */
function objectOf(data: unknown): object {
  try {
    const value: unknown = typeof data === 'string' ? JSON.parse(data) : data;
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
