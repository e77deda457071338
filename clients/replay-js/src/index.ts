// Nothing missed over reconnects: replay for pusher-js and Laravel Echo on a Tidewire server.
import { attach } from './attach.js';
import type { ReplayOptions } from './options.js';

export type { ChannelChoice, ChannelOptions, PositionStorage, ReplayOptions, Rewind } from './options.js';

/** A channel of an instance with replay. */
export type Positioned<C> = C & {
  /** How far this channel is, as in `k3Jd9Q.2:1842`; undefined while the server has told none. */
  readonly position: string | undefined;
};

/** Data of `tidewire:recovered`: everything that was missed has come. */
export interface Recovered {
  count: number;
}

/** Data of `tidewire:resync`: messages were missed for good, so the state must be fetched. */
export interface Resync {
  /**
   * Of the server: `expired`, `rolled_back`, `stream_reset`, `too_many`, `disabled`. Of this package: `unreadable` (a
   * message the log cannot give back), `gap` (one it does not have), `invalid` (a position it does not accept).
   */
  reason: string;
  /** Serial of the oldest message that is kept. */
  oldest?: number;
}

/**
 * The class `Pusher` with replay: for the option `Pusher` of Laravel Echo, or to construct. The class that is given
 * stays as it is.
 */
export function withReplay<C extends new (...args: any[]) => object>(Pusher: C, options: ReplayOptions = {}): C {
  if (typeof Pusher !== 'function') throw new TypeError('tidewire-replay: withReplay() takes the class of pusher-js');
  // A proxy and no subclass: what is set on it, such as logToConsole, must reach the class that reads it.
  return new Proxy(Pusher, {
    construct(target, args, newTarget) {
      const instance = Reflect.construct(target, args, newTarget) as object;
      try {
        attach(instance, options);
      } catch (error) {
        // Nobody will hold it: it must not go on connecting.
        (instance as { disconnect?(): void }).disconnect?.();
        throw error;
      }
      return instance;
    },
  });
}

/**
 * Gives an instance of pusher-js replay, and returns it: for the option `client` of Laravel Echo. To be called before
 * the first `subscribe()`; what is subscribed already has positions from the next connection on.
 */
export function attachReplay<P extends object>(pusher: P, options: ReplayOptions = {}): P {
  attach(pusher, options);
  return pusher;
}
