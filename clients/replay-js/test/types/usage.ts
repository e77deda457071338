// Compiled by package.test.js, never run: what an application writes must have the right types.
import Pusher, { type Channel } from 'pusher-js';
import Pusher7 from 'pusher-js-7';
import Pusher80 from 'pusher-js-8.0';
import { attachReplay, withReplay, type Positioned, type Recovered, type ReplayOptions, type Resync } from 'tidewire-replay';

const options: ReplayOptions = {
  rewind: { count: 10 },
  onGap: 'reject',
  storage: typeof sessionStorage === 'undefined' ? undefined : sessionStorage,
  channels: { 'private-orders': { from: 'k3Jd9Q.2:1842' }, chat: false, news: { rewind: 'earliest' } },
};

const WithReplay = withReplay(Pusher, options);
const pusher: Pusher = new WithReplay('key', { cluster: 'mt1' });
WithReplay.logToConsole = true;
const attached: Pusher = attachReplay(new Pusher('key', { cluster: 'mt1' }), { channels: (name) => name.startsWith('x') && {} });
const older: Pusher7 = new (withReplay(Pusher7))('key', { cluster: 'mt1' });
const old: Pusher80 = attachReplay(new Pusher80('key', { cluster: 'mt1' }));

const channel = pusher.subscribe('private-orders') as Positioned<Channel>;
const position: string | undefined = channel.position;
channel.bind('tidewire:recovered', ({ count }: Recovered) => count.toFixed());
channel.bind('tidewire:resync', ({ reason, oldest }: Resync) => [reason.length, oldest?.toFixed()]);

// @ts-expect-error the options of a key are a string
new WithReplay(7);
// @ts-expect-error there is no such rewind
withReplay(Pusher, { rewind: 'yesterday' });
// @ts-expect-error an instance is no class
withReplay(pusher);
// @ts-expect-error nobody sets a position
channel.position = 'k3Jd9Q.2:1';

export { attached, older, old, position };
