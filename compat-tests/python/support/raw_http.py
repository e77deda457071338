"""An HTTP request sent byte for byte, so that a test decides every character of it."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from .target import Target

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def send(
    target: Target, method: str, request_target: str, headers: list[tuple[str, str]], body: bytes = b""
) -> Reply:
    """Sends exactly these bytes: the caller percent-encodes, orders the headers and counts the body."""
    head = f"{method} {request_target} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(head.encode("latin-1") + b"\r\n" + body)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        content = response.read()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
