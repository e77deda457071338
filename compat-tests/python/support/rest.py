"""A plain signed publisher for the tests whose subject is not the request."""

import json
from typing import Any

from .raw_http import Reply, send
from .signing import auth_pairs, joined, md5_hex, sign
from .target import Target


class Rest:
    """Signs and sends HTTP API requests of one app."""

    def __init__(self, target: Target):
        self.target = target

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        query: list[tuple[str, str]] | None = None,
        headers: list[tuple[str, str]] | None = None,
        timestamp: int | None = None,
    ) -> Reply:
        """`path` starts at /apps; values of `query` must need no percent-encoding."""
        pairs = auth_pairs(self.target, timestamp) + (query or [])
        if body:
            pairs.append(("body_md5", md5_hex(body)))
        pairs.append(("auth_signature", sign(self.target.secret, method, path, pairs)))
        return self.unsigned(method, f"{path}?{joined(pairs)}", body, headers)

    def unsigned(
        self, method: str, request_target: str, body: bytes = b"", headers: list[tuple[str, str]] | None = None
    ) -> Reply:
        lines = [("Host", self.target.authority), ("Connection", "close")]
        lines += headers if headers is not None else [("Content-Type", "application/json")] if body else []
        if body or method == "POST":
            lines.append(("Content-Length", str(len(body))))
        return send(self.target, method, self.target.prefix + request_target, lines, body)

    def app_path(self, rest: str) -> str:
        return f"/apps/{self.target.app_id}{rest}"

    def get(self, rest: str, **query: str) -> Reply:
        return self.request("GET", self.app_path(rest), query=list(query.items()))

    def post(self, rest: str, body: Any) -> Reply:
        return self.request("POST", self.app_path(rest), body if isinstance(body, bytes) else json.dumps(body).encode())

    def publish(self, channel: str, event: str, data: str = "{}", **more: Any) -> None:
        """Publishes one event and insists on success."""
        reply = self.post("/events", {"name": event, "channels": [channel], "data": data, **more})
        assert reply.status == 200, f"publish to {channel}: {reply.status} {reply.text}"
