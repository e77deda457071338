// Ties cursors to an instance of pusher-js: what it sends, what it hears, what it loses.
import { Cursor } from './cursor.js';
import type { Frame, Request } from './cursor.js';
import { optionsOf } from './options.js';
import type { PositionStorage, ReplayOptions } from './options.js';

/** What is used of a channel of pusher-js. */
interface Channel {
  name: string;
  subscribed: boolean;
  subscriptionPending: boolean;
  subscribe(): void;
  emit(event: string, data: unknown): unknown;
}

/** What is used of an instance of pusher-js; test/names.test.js holds every release to it. */
interface Pusher {
  key: string;
  connection: {
    state: string;
    socket_id: string;
    connection: { transport: Transport } | null;
    bind(event: 'state_change', callback: (change: { previous: string; current: string }) => void): unknown;
  };
  user?: { serverToUserChannel?: Channel | null };
  send_event(event: string, data: unknown, channel?: string): boolean;
  subscribe(channel: string): Channel;
  unsubscribe(channel: string): void;
  channel(name: string): Channel | undefined;
  allChannels(): Channel[];
}

/** Any transport: WebSocket, SockJS, XHR. Its `message` events still carry the text that came over the wire. */
interface Transport {
  emit(event: string, data?: unknown, ...rest: unknown[]): unknown;
}

/** The data of `pusher:subscribe`. The signature in it holds for the connection it was made for. */
interface Ticket {
  channel: string;
}

interface Following {
  cursor: Cursor;
  ticket: Ticket | undefined;
  failures: number;
  retryTimer: unknown;
}

/** Whatever else comes need not be parsed twice. Inside of `data`, quotes are escaped. */
const RELEVANT = /"serial"\s*:|"pusher_internal:(?:subscription_succeeded|replay_)|"pusher:subscription_error"/;

const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 30_000;

const METHODS = ['send_event', 'subscribe', 'unsubscribe', 'channel', 'allChannels'] as const;
const ATTACHED = Symbol.for('tidewire-replay');

// What browsers, workers and Node all have; their own types disagree.
declare function setTimeout(callback: () => void, delayMs: number): unknown;
declare function clearTimeout(timer: unknown): void;
declare const console: { warn(message: string): void };

export function attach(instance: object, options: ReplayOptions): void {
  if (ATTACHED in instance) return;
  const pusher = instance as Pusher;
  for (const name of METHODS) {
    if (typeof pusher[name] !== 'function') {
      throw new TypeError(`tidewire-replay: this is no pusher-js it knows, there is no ${name}()`);
    }
  }
  Object.defineProperty(instance, ATTACHED, { value: new Attachment(pusher, options) });
}

class Attachment {
  private readonly followed = new Map<string, Following>();
  private readonly storage: PositionStorage | null | undefined;
  private readonly sendEvent: Pusher['send_event'];

  constructor(
    private readonly pusher: Pusher,
    private readonly options: ReplayOptions,
  ) {
    this.storage = options.storage;
    this.sendEvent = pusher.send_event.bind(pusher);
    pusher.send_event = (event, data, channel) =>
      this.sendEvent(event, event === 'pusher:subscribe' ? this.withRequest(data as Ticket) : data, channel);
    this.wrapSubscriptions();
    pusher.connection.bind('state_change', ({ current }) => {
      if (current === 'connected') this.listen();
      else this.stopRetries();
    });
    if (pusher.connection.state === 'connected') this.listen();
  }

  private wrapSubscriptions(): void {
    const { pusher } = this;
    const subscribe = pusher.subscribe.bind(pusher);
    const unsubscribe = pusher.unsubscribe.bind(pusher);
    pusher.subscribe = (name) => {
      // Here and not when it is sent: whoever gave bad options is to hear of it.
      this.follow(name);
      return this.withPosition(subscribe(name));
    };
    pusher.unsubscribe = (name) => {
      unsubscribe(name);
      // A channel whose subscription is under way stays until the server has answered.
      if (!pusher.channel(name)) this.forget(name);
    };
    for (const channel of pusher.allChannels()) this.withPosition(channel);
  }

  private withPosition(channel: Channel): Channel {
    if (channel && !('position' in channel)) {
      const get = () => this.followed.get(channel.name)?.cursor.text;
      Object.defineProperty(channel, 'position', { get, configurable: true });
    }
    return channel;
  }

  // ---- what is sent

  private withRequest(ticket: Ticket): Ticket & { replay?: Request } {
    const following = this.follow(ticket.channel);
    if (!following) return ticket;
    following.ticket = ticket;
    this.channel(ticket.channel);
    return { ...ticket, replay: following.cursor.request(this.pusher.connection.socket_id) };
  }

  private follow(name: string): Following | undefined {
    const known = this.followed.get(name);
    if (known) return known;
    const options = optionsOf(this.options, name);
    if (!options) return undefined;
    const cursor = new Cursor(options, this.stored(name));
    const following = { cursor, ticket: undefined, failures: 0, retryTimer: undefined };
    this.followed.set(name, following);
    return following;
  }

  private repair({ cursor, ticket }: Following): void {
    this.sendEvent('pusher:subscribe', { ...ticket, replay: cursor.repair() });
  }

  // ---- what is heard

  /** Only before pusher-js decodes them do frames have positions. */
  private listen(): void {
    const transport = this.pusher.connection.connection?.transport;
    if (typeof transport?.emit !== 'function') {
      console.warn('tidewire-replay: this pusher-js has no connection.connection.transport.emit(); nothing is replayed');
      return;
    }
    const emit = transport.emit;
    transport.emit = (event, data, ...rest) => {
      const pass = () => emit.call(transport, event, data, ...rest);
      const frame = event === 'message' ? frameOf(data) : undefined;
      return frame ? this.receive(frame, pass) : pass();
    };
  }

  private receive(frame: Frame, pass: () => unknown): unknown {
    const name = frame.channel;
    const following = name === undefined ? undefined : this.followed.get(name);
    if (name === undefined || !following) return pass();
    const { cursor } = following;
    const before = cursor.text;
    const { deliver, advance, repair, refused, retry, notice } = cursor.judge(frame, Date.now());
    try {
      if (refused) this.free(name);
      if (deliver) return pass();
    } finally {
      // A message whose callback threw has been seen, too: it would throw again.
      if (advance) cursor.position = advance;
      if (cursor.text !== before) this.store(name, following);
      if (repair) this.repair(following);
      if (retry) this.retryLater(name, following);
      else if (frame.event.startsWith('pusher_internal:')) following.failures = 0;
      if (notice) this.channel(name)?.emit(notice.event, notice.data);
    }
    return undefined;
  }

  /** The channel of that name, with a position; pusher-js keeps the one of the signed-in user apart. */
  private channel(name: string): Channel | undefined {
    const user = this.pusher.user?.serverToUserChannel;
    return this.pusher.channel(name) ?? (user?.name === name ? this.withPosition(user) : undefined);
  }

  /** pusher-js takes a refused subscription for one under way, and would not subscribe again. */
  private free(name: string): void {
    const channel = this.channel(name);
    if (channel) channel.subscriptionPending = false;
  }

  private retryLater(name: string, following: Following): void {
    const delayMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** following.failures) * (0.5 + Math.random());
    following.failures += 1;
    clearTimeout(following.retryTimer);
    following.retryTimer = setTimeout(() => {
      const channel = this.channel(name);
      if (this.followed.get(name) !== following || !channel) return;
      if (following.cursor.isRepairing) this.repair(following);
      else if (!channel.subscriptionPending) channel.subscribe();
    }, delayMs);
  }

  /** A new connection subscribes everything anyway. */
  private stopRetries(): void {
    for (const { retryTimer } of this.followed.values()) clearTimeout(retryTimer);
  }

  // ---- what is kept

  private forget(name: string): void {
    clearTimeout(this.followed.get(name)?.retryTimer);
    this.followed.delete(name);
    this.inStorage((storage) => storage.removeItem(this.storageKey(name)));
  }

  private store(name: string, following: Following): void {
    // A callback may have unsubscribed.
    if (this.followed.get(name) !== following) return;
    const { text } = following.cursor;
    this.inStorage((storage) =>
      text === undefined ? storage.removeItem(this.storageKey(name)) : storage.setItem(this.storageKey(name), text));
  }

  private stored(name: string): string | null | undefined {
    return this.inStorage((storage) => storage.getItem(this.storageKey(name)));
  }

  private storageKey(name: string): string {
    return `tidewire-replay:${this.pusher.key}:${name}`;
  }

  /** Storage may be full or forbidden: positions then last as long as the page. */
  private inStorage<T>(act: (storage: PositionStorage) => T): T | undefined {
    try {
      return this.storage ? act(this.storage) : undefined;
    } catch {
      return undefined;
    }
  }
}

function frameOf(message: unknown): Frame | undefined {
  const text = (message as { data?: unknown } | null | undefined)?.data;
  if (typeof text !== 'string' || !RELEVANT.test(text)) return undefined;
  try {
    const frame = JSON.parse(text) as Frame | null;
    return frame && typeof frame.event === 'string' ? frame : undefined;
  } catch {
    return undefined;
  }
}
