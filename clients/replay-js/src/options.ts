// What the application may choose.

/** Where a channel begins that has no position yet. */
export type Rewind = { count: number } | { seconds: number } | 'earliest';

export interface ChannelOptions {
  /**
   * Begin after this position, as the backend read it with `info=position` before it rendered the page. Null and
   * undefined are no position.
   */
  from?: string | null | undefined;
  /** Without a position: what of the past to begin with. Nothing unless said. */
  rewind?: Rewind | undefined;
  /**
   * When not everything that was missed is kept any more: go on live after a `tidewire:resync` (`continue`, the
   * default), or have the subscription refused (`reject`).
   */
  onGap?: 'continue' | 'reject' | undefined;
}

/** Settings of a channel, or false to leave replay out of its subscriptions. */
export type ChannelChoice = ChannelOptions | false | null | undefined;

export interface ReplayOptions {
  /** `rewind` of every channel that does not say otherwise. */
  rewind?: Rewind | undefined;
  /** `onGap` of every channel that does not say otherwise. */
  onGap?: 'continue' | 'reject' | undefined;
  /** By full channel name (`private-orders.7`), or a function of it. Asked once for each new subscription. */
  channels?: Readonly<Record<string, ChannelChoice>> | ((channel: string) => ChannelChoice) | undefined;
  /**
   * Keeps positions over page reloads: `sessionStorage`. Not `localStorage`: tabs would overwrite each other's. A
   * message whose callbacks the reload cut short comes again.
   */
  storage?: PositionStorage | null | undefined;
}

/** What is used of a `Storage`. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** The settings of a channel; false if it is to have no replay. */
export function optionsOf(options: ReplayOptions, channel: string): ChannelOptions | false {
  const { channels, rewind, onGap } = options;
  const choice = typeof channels === 'function' ? channels(channel) : channels?.[channel];
  return choice === false ? false : { rewind, onGap, ...choice };
}
