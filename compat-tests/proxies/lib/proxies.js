// The proxies, each started with the configuration that deploy/ ships: only addresses, paths and sizes are replaced.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { folder, freePort, searchPath, start, work } from './processes.js';

const shipped = new URL('../../../deploy/', import.meta.url);

/** `command` is what must be installed; `replace` lists what is replaced, and why where it is no address or path. */
const kinds = {
  nginx: {
    file: 'nginx.conf',
    replace: ({ dir, node, plain, tls }) => [
      ['user www-data;', ''], // only root may change user
      ['pid /run/nginx.pid;', `pid ${dir}/nginx.pid;`],
      ['error_log /var/log/nginx/error.log warn;', 'error_log stderr warn;'],
      ['\nhttp {', ['\nhttp {', ...nginxFolders(dir)].join('\n    ')],
      ['server 127.0.0.1:6001;', `server 127.0.0.1:${node};`],
      ['listen 80;', `listen 127.0.0.1:${plain};`],
      ['listen 443 ssl;', `listen 127.0.0.1:${tls} ssl;`],
      ['server_name ws.example.com;', 'server_name localhost;'],
      ['/etc/ssl/tidewire/', `${work}/`],
    ],
    args: (config, dir) => ['-p', dir, '-e', 'stderr', '-c', config, '-g', 'daemon off;'],
  },
  haproxy: {
    file: 'haproxy.cfg',
    replace: ({ node, plain, tls }) => [
      ['user  haproxy', ''], // only root may change user
      ['group haproxy', ''],
      ['log /dev/log local0 warning', 'log stderr format raw local0 warning'],
      ['maxconn 30000', 'maxconn 2000'], // HAProxy refuses to start above the limit of open files
      ['bind :80', `bind 127.0.0.1:${plain}`],
      ['bind :443', `bind 127.0.0.1:${tls}`],
      ['ssl crt /etc/haproxy/tidewire.pem', `ssl crt ${work}/tidewire.pem`],
      ['server node1 127.0.0.1:6001', `server node1 127.0.0.1:${node}`],
    ],
    args: (config) => ['-db', '-f', config],
  },
  caddy: {
    file: 'Caddyfile',
    replace: ({ node, plain, tls }) => [
      ['http_port 80', `http_port ${plain}\n\tdefault_bind 127.0.0.1\n\tadmin off`],
      ['https_port 443', `https_port ${tls}`],
      ['reverse_proxy 127.0.0.1:6001', `reverse_proxy 127.0.0.1:${node}`],
      ['ws.example.com {', 'localhost, 127.0.0.1 {'],
      ['# tls /etc/ssl/tidewire/fullchain.pem /etc/ssl/tidewire/privkey.pem', `tls ${work}/fullchain.pem ${work}/privkey.pem`],
    ],
    args: (config) => ['run', '--adapter', 'caddyfile', '--config', config],
  },
};

export const names = Object.keys(kinds);

/** Whether the program is on this machine. */
export function installed(name) {
  try {
    execFileSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore', env: { PATH: searchPath } });
    return true;
  } catch {
    return false;
  }
}

/** Starts one proxy in front of the node and tells its two ports. */
export async function startProxy(name, nodePort) {
  const { file, replace, args } = kinds[name];
  const dir = folder(name);
  const ports = { node: nodePort, plain: await freePort(), tls: await freePort() };
  const config = path.join(dir, file);
  fs.writeFileSync(config, substitute(file, replace({ dir, ...ports })));
  const proxy = await start(name, name, args(config, dir), {
    url: `https://localhost:${ports.tls}/ready`,
    env: { HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir },
    unprivileged: true,
  });
  return { ...proxy, ...ports };
}

/** Every replacement has to find its text, in lines that do something: else the test would test something else. */
function substitute(file, replacements) {
  let text = fs.readFileSync(new URL(file, shipped), 'utf8');
  for (const [from, to] of replacements) {
    if (!text.includes(from)) throw new Error(`deploy/${file} no longer says ${JSON.stringify(from)}`);
    text = text.replaceAll(from, () => to);
  }
  return text;
}

/** nginx would otherwise want folders below /var/lib, which belong to the packaged service. */
function nginxFolders(dir) {
  return ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((use) => `${use}_temp_path ${dir}/${use};`);
}
