// A TCP door in front of a server, as a load balancer is: while it is shut, new connections wait.
import net from 'node:net';

export class Door {
  static async open(t, { host, port }) {
    const door = new Door({ host, port });
    await new Promise((resolve) => door.#listener.listen(0, '127.0.0.1', resolve));
    t.after(() => door.#end());
    return door;
  }

  #destination;
  #listener = net.createServer((inner) => this.#enter(inner));
  #sockets = new Set();
  #waiting = [];
  #isShut = false;

  constructor(destination) {
    this.#destination = destination;
    this.host = '127.0.0.1';
  }

  get port() {
    return this.#listener.address().port;
  }

  shut() {
    this.#isShut = true;
  }

  /** Shuts it, and drops connections the way a dying network does. */
  slam() {
    this.shut();
    this.#drop();
  }

  open() {
    this.#isShut = false;
    for (const inner of this.#waiting.splice(0)) this.#lead(inner);
  }

  #enter(inner) {
    this.#keep(inner);
    if (this.#isShut) this.#waiting.push(inner);
    else this.#lead(inner);
  }

  #lead(inner) {
    const outer = net.connect(this.#destination.port, this.#destination.host);
    this.#keep(outer);
    inner.on('close', () => outer.destroy());
    outer.on('close', () => inner.destroy());
    inner.pipe(outer).pipe(inner);
  }

  #keep(socket) {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
  }

  #drop() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  #end() {
    this.#drop();
    this.#listener.close();
  }
}
