"""Signatures of the protocol, written from sections 3 and 4.3 of the specification."""

import hashlib
import hmac
import time

from .target import Target


def hmac_hex(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def md5_hex(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def channel_auth(target: Target, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    text = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    return f"{target.key}:{hmac_hex(target.secret, text)}"


def user_auth(target: Target, socket_id: str, user_data: str) -> str:
    return f"{target.key}:{hmac_hex(target.secret, f'{socket_id}::user::{user_data}')}"


def joined(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{key}={value}" for key, value in pairs)


def sign(secret: str, method: str, path: str, pairs: list[tuple[str, str]]) -> str:
    """The signature of a request whose parameters are signed sorted, as the hosted service verifies them."""
    return hmac_hex(secret, f"{method}\n{path}\n{joined(sorted(pairs))}")


def auth_pairs(target: Target, timestamp: int | None = None) -> list[tuple[str, str]]:
    return [
        ("auth_key", target.key),
        ("auth_timestamp", str(int(time.time()) if timestamp is None else timestamp)),
        ("auth_version", "1.0"),
    ]
