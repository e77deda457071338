// pusher-js as it is published: every release line this package supports, in every build that loads here.
import { webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import vm from 'node:vm';
import WebSocket from 'ws';

const require = createRequire(import.meta.url);

const RELEASES = ['pusher-js', 'pusher-js-8.0', 'pusher-js-7'];

/** The build for Node, and those whose names went through a minifier. */
const BUILDS = {
  node: 'node/pusher.js',
  web: 'web/pusher.min.js',
  'web, encryption': 'web/pusher-with-encryption.min.js',
  worker: 'worker/pusher.worker.min.js',
  'worker, encryption': 'worker/pusher-with-encryption.worker.min.js',
  'react-native': 'react-native/pusher.js',
};

/** The package that tells React Native of its network. */
const NETWORK = { fetch: async () => ({ type: 'wifi' }), addEventListener() {} };

/** What the builds look for when they are loaded and connect over WebSocket; nothing here does anything else. */
function surroundings() {
  const module = { exports: {} };
  const page = {
    protocol: 'http:',
    document: { location: { protocol: 'http:' }, getElementsByTagName: () => [{}], createElement: () => ({}), body: {} },
  };
  const globals = {
    module,
    exports: module.exports,
    require: () => NETWORK,
    WebSocket,
    setTimeout,
    clearTimeout,
    setInterval,
    clearInterval,
    console,
    URL,
    Uint8Array,
    crypto: webcrypto,
    navigator: {},
    location: page,
    document: page.document,
    addEventListener() {},
  };
  return Object.assign(globals, { window: globals, self: globals, global: globals });
}

function load(release, build) {
  const file = require.resolve(`${release}/package.json`).replace('package.json', `dist/${BUILDS[build]}`);
  if (build === 'node') return require(release);
  const globals = surroundings();
  vm.runInContext(readFileSync(file, 'utf8'), vm.createContext(globals), { filename: `${release}/${BUILDS[build]}` });
  const { exports } = globals.module;
  return typeof exports === 'function' ? exports : exports.Pusher ?? exports.default;
}

/** Calls a `crypto.randomInt` that it does not bring along: nobody can construct it. */
const BROKEN = 'pusher-js-7 react-native';

export const releases = RELEASES.flatMap((release) => {
  const { version } = require(`${release}/package.json`);
  return Object.keys(BUILDS).filter((build) => `${release} ${build}` !== BROKEN).map((build) => ({
    version,
    build,
    name: `pusher-js ${version} (${build})`,
    load: () => load(release, build),
  }));
});

export const newest = releases[0];
export const inNode = releases.filter(({ build }) => build === 'node');
