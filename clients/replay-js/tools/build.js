// Compiles src/ twice: ES modules to dist/esm, CommonJS to dist/cjs, both with types.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

const builds = [
  { folder: 'esm', type: 'module', options: ['--module', 'es2020', '--moduleResolution', 'bundler'] },
  { folder: 'cjs', type: 'commonjs', options: ['--module', 'commonjs', '--moduleResolution', 'node10'] },
];

rmSync(`${root}/dist`, { recursive: true, force: true });
for (const { folder, type, options } of builds) {
  const out = `${root}/dist/${folder}`;
  execFileSync(process.execPath, [tsc, '--outDir', out, ...options], { cwd: root, stdio: 'inherit' });
  // The nearest package.json tells Node what the .js files beside it are.
  mkdirSync(out, { recursive: true });
  writeFileSync(`${out}/package.json`, `${JSON.stringify({ type })}\n`);
}
