// The package as npm would publish it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('..', import.meta.url));
const run = (program, args, cwd = root) => execFileSync(program, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

test('what is packed can be imported and required', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'tidewire-replay-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [{ filename, files }] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]));
  const paths = files.map(({ path }) => path);
  for (const path of ['README.md', 'LICENSE-MIT', 'LICENSE-APACHE', 'dist/esm/index.js', 'dist/cjs/index.d.ts']) {
    assert.ok(paths.includes(path), `${path} is not in the package`);
  }
  assert.deepEqual(paths.filter((path) => /^(?:test|tools)\/|\.tgz$/.test(path)), []);

  const home = join(folder, 'node_modules/tidewire-replay');
  mkdirSync(home, { recursive: true });
  run('tar', ['-xzf', join(folder, filename), '-C', home, '--strip-components=1']);
  const names = 'console.log(Object.keys(replay).sort().join())';
  const imported = run(process.execPath, ['--input-type=module', '-e', `import * as replay from 'tidewire-replay'; ${names}`], folder);
  const required = run(process.execPath, ['-e', `const replay = require('tidewire-replay'); ${names}`], folder);
  assert.equal(imported, 'attachReplay,withReplay\n');
  assert.equal(required, imported);
});

test('it needs nothing but pusher-js, and that from the application', () => {
  const { dependencies, peerDependencies, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.equal(dependencies, undefined);
  assert.deepEqual(peerDependencies, { 'pusher-js': '>=7' });
  assert.equal(license, 'MIT OR Apache-2.0');
  const built = ['index', 'attach', 'cursor', 'options'].map((name) => readFileSync(join(root, `dist/esm/${name}.js`), 'utf8'));
  for (const [, from] of built.join('\n').matchAll(/\bfrom ['"]([^'"]+)/g)) assert.match(from, /^\.\//);
});

test('applications compile, with the types of every pusher-js', () => {
  const flags = ['--noEmit', '--strict', '--skipLibCheck', '--lib', 'es2022,dom', '--module', 'esnext', '--moduleResolution', 'bundler'];
  try {
    run(process.execPath, [require.resolve('typescript/bin/tsc'), ...flags, 'test/types/usage.ts']);
  } catch (error) {
    assert.fail(error.stdout || error.message);
  }
});
