"""A WebSocket client that can break every rule of RFC 6455, on a plain socket."""

import base64
import hashlib
import os
import socket
import struct
from dataclasses import dataclass
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT_SECONDS = 10
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True,
    length: bytes | None = None,
) -> bytes:
    """One frame. `length` replaces the length field, mask bit excluded, by these bytes."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65_536:
            length = b"\x7e" + struct.pack(">H", size)
        else:
            length = b"\x7f" + struct.pack(">Q", size)
    head = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | length[0]]) + length[1:]
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def mask(payload: bytes, key: bytes) -> bytes:
    repeated = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ repeated).to_bytes(len(payload), "big")


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


@dataclass(frozen=True)
class Frame:
    fin: bool
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        return struct.unpack(">H", self.payload[:2])[0] if len(self.payload) >= 2 else None


class Ended(Exception):
    """The server closed the TCP connection."""


class Peer:
    """A connection after its handshake."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._handshake(parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    def _handshake(self, authority: str, target: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head, _, self._received = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        accept = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
        assert status.startswith("HTTP/1.1 101 "), status
        assert headers["sec-websocket-accept"] == accept, "wrong Sec-WebSocket-Accept"
        assert headers["upgrade"].lower() == "websocket" and "upgrade" in headers["connection"].lower(), headers
        assert "sec-websocket-extensions" not in headers and "sec-websocket-protocol" not in headers, headers

    def send(self, *parts: bytes, chop: int = 0) -> None:
        """In one write, or in pieces of `chop` octets. What follows a failed connection may not arrive."""
        content = b"".join(parts)
        step = chop or len(content)
        try:
            for start in range(0, len(content), step):
                self.socket.sendall(content[start : start + step])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self) -> Frame:
        first, second = self._take(2)
        assert first & 0x70 == 0, "a reserved bit is set"
        assert second & 0x80 == 0, "the server masked a frame"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
            assert size >= 126, "the length is not minimal"
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
            assert size >= 65_536, "the length is not minimal"
        return Frame(bool(first & 0x80), first & 0x0F, self._take(size))

    def message(self) -> tuple[int, bytes]:
        """The next message or control frame, reassembled: opcode and payload."""
        received = self.receive()
        opcode, payload = received.opcode, received.payload
        while not received.fin:
            received = self.receive()
            assert received.opcode == CONTINUATION, "a fragmented message was interrupted"
            payload += received.payload
        return opcode, payload

    def expect(self, *messages: tuple[int, bytes]) -> None:
        for number, wanted in enumerate(messages):
            got = self.message()
            assert got == wanted, f"message {number}: {_shown(got)} instead of {_shown(wanted)}"

    def expect_close(self, *codes: int | None) -> None:
        """The next frame must close with one of these codes, and the connection must end after it."""
        received = self.receive()
        assert received.opcode == CLOSE, f"{_shown((received.opcode, received.payload))} instead of a close"
        assert received.close_code in codes, f"closed with {received.close_code}, not {codes}"
        received.payload[2:].decode()
        try:
            extra = self.receive()
        except Ended:
            return
        raise AssertionError(f"{_shown((extra.opcode, extra.payload))} after the close frame")

    def close_cleanly(self) -> None:
        self.send(close(1000))
        self.expect_close(1000)

    def hang_up(self) -> None:
        self.socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._read()
        return self._received

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._read()
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _read(self) -> None:
        try:
            chunk = self.socket.recv(65_536)
        except ConnectionResetError as error:
            raise Ended("connection reset") from error
        except TimeoutError as error:
            raise AssertionError("the server says nothing") from error
        if not chunk:
            raise Ended("end of stream")
        self._received += chunk


def _shown(message: tuple[int, bytes]) -> str:
    opcode, payload = message
    return f"opcode {opcode} with {len(payload)} octets {payload[:32]!r}"
