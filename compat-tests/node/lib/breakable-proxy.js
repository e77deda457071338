// A TCP door in front of the server that tests can slam.
import net from 'node:net';
import { target } from './target.js';

/**
 * Forwards bytes to a server; `cut()` drops every connection the way a dying network does, `leadTo()` sends new
 * connections elsewhere, as a load balancer does.
 */
export async function startBreakableProxy(t, destination = { host: target.wsHost, port: target.wsPort }) {
  const pairs = new Set();
  const server = net.createServer((inner) => {
    const outer = net.connect(destination.port, destination.host ?? '127.0.0.1');
    const pair = [inner, outer];
    pairs.add(pair);
    for (const socket of pair) {
      socket.on('error', () => {});
      socket.on('close', () => {
        inner.destroy();
        outer.destroy();
        pairs.delete(pair);
      });
    }
    inner.pipe(outer).pipe(inner);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const [inner, outer] of pairs) {
      inner.resetAndDestroy();
      outer.resetAndDestroy();
    }
  };
  t.after(() => {
    cut();
    server.close();
  });
  const leadTo = (elsewhere) => { destination = elsewhere; };
  return { port: server.address().port, host: '127.0.0.1', cut, leadTo };
}
