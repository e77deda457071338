"""pusher-http-ruby 2.1.0 under httpclient: the exact requests it sends, checked as its `handle_response` would.

Parameters are signed sorted and unescaped by the pusher-signature gem, then sent in another order, form-encoded:
`[^ a-zA-Z0-9_.-]` becomes %XX and a space becomes `+`.
"""

import email.utils
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from support.raw_http import Reply, send
from support.signing import auth_pairs, hmac_hex, joined, md5_hex
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


class PusherError(Exception):
    """`Pusher::Error`."""


class AuthenticationError(PusherError):
    """`Pusher::AuthenticationError`."""


def escape(text: str) -> str:
    """`HTTP::Message.escape`."""
    encoded = re.sub(rb"[^ a-zA-Z0-9_.-]", lambda match: b"%%%02X" % match[0][0], text.encode())
    return encoded.decode().replace(" ", "+")


class Ruby:
    """`Pusher::Client.new(app_id:, key:, secret:, host:, port:, use_tls: false)`."""

    def __init__(self, target: Target):
        self.target = target

    def call(self, method: str, path: str, params: dict[str, str], body: str | None = None) -> Reply:
        path = f"/apps/{self.target.app_id}{path}"
        head = [("X-Pusher-Library", "pusher-http-ruby 2.1.0")]
        content = b""
        if body is not None:
            content = body.encode()
            params = {**params, "body_md5": md5_hex(content)}
            head.append(("Content-Type", "application/json"))
        auth = dict(auth_pairs(self.target))
        signed = [*params.items(), *((key, auth[key]) for key in ("auth_version", "auth_key", "auth_timestamp"))]
        signature = hmac_hex(self.target.secret, f"{method}\n{path}\n{joined(sorted(signed))}")
        wire = "&".join(f"{escape(key)}={escape(value)}" for key, value in [*signed, ("auth_signature", signature)])
        head += [
            ("User-Agent", "HTTPClient/1.0 (2.9.0, ruby 3.3.6 (2024-11-05))"),
            ("Accept", "*/*"),
            ("Date", email.utils.formatdate(usegmt=True)),
        ]
        if body is not None:
            head.append(("Content-Length", str(len(content))))
        head.append(("Host", self.target.authority))
        return send(self.target, method, f"{path}?{wire}", head, content)

    def answer(self, reply: Reply) -> Any:
        body = reply.text.removesuffix("\n")
        match reply.status:
            case 200:
                return json.loads(body)
            case 202:
                return True if body == "" else json.loads(body)
            case 400:
                raise PusherError(f"Bad request: {body}")
            case 401:
                raise AuthenticationError(body)
            case 404:
                raise PusherError("404 Not found")
            case 413:
                raise PusherError("Payload Too Large > 10KB")
        raise PusherError(f"Unknown error (status code {reply.status}): {body}")

    def trigger(self, channels: str | list[str], event: str, data: Any, **params: Any) -> Any:
        """Caller's parameters come first; a String is sent as it is."""
        names = [channels] if isinstance(channels, str) else channels
        encoded = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        body = {**params, "name": event, "channels": names, "data": encoded}
        return self.post("/events", body)

    def post(self, path: str, body: Any) -> Any:
        return self.answer(self.call("POST", path, {}, json.dumps(body, separators=(",", ":"), ensure_ascii=False)))

    def get(self, path: str, **params: str) -> Any:
        return self.answer(self.call("GET", path, params))


@pytest.fixture
def ruby(target: Target) -> Ruby:
    return Ruby(target)


def test_s227_ruby_trigger_sends_raw_utf8_and_is_delivered(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    assert ruby.trigger(channel, "order.paid", {"note": "Žluťoučký 🐎"}) == {}
    assert subscriber.expect("order.paid", channel).decoded() == {"note": "Žluťoučký 🐎"}


def test_s132_ruby_trigger_with_socket_id_first_in_the_body(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("chat")
    author, reader = wire(), wire()
    author.subscribe(channel)
    reader.subscribe(channel)
    ruby.trigger(channel, "said", "hi", socket_id=author.socket_id)
    ruby.trigger(channel, "marker", "")
    assert reader.expect("said", channel).data == "hi"
    assert author.until("marker") == []


def test_s163_ruby_trigger_with_info(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    assert ruby.trigger(channel, "x", "", info="user_count") == {"channels": {channel: {"user_count": 1}}}


def test_s227_ruby_trigger_batch(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("feed")
    subscriber = wire()
    subscriber.subscribe(channel)
    batch = [{"channel": channel, "name": f"item-{n}", "data": "{}"} for n in range(3)]
    assert ruby.post("/batch_events", {"batch": batch}) == {}
    for n in range(3):
        subscriber.expect(f"item-{n}", channel)


def test_s144_s171_ruby_channels_with_an_encoded_filter(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a@x,y.z;q=1")
    wire().join(channel, "u-1")
    answer = ruby.get("/channels", filter_by_prefix="presence-a@x,y.z;q=1", info="user_count")
    assert answer["channels"][channel] == {"user_count": 1}


def test_s144_ruby_a_space_is_sent_as_a_plus(ruby: Ruby) -> None:
    assert ruby.get("/channels", filter_by_prefix="no such+prefix") == {"channels": {}}


def test_s175_ruby_channel_info_asks_with_an_empty_info(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    """`Pusher['news'].info` without attributes sends `info=`; that is no attribute, not an unknown one."""
    channel = name("news")
    assert ruby.get(f"/channels/{channel}", info="") == {"occupied": False}
    wire().subscribe(channel)
    assert ruby.get(f"/channels/{channel}", info="") == {"occupied": True}


def test_s175_ruby_channel_info_of_a_channel_never_seen_does_not_raise(ruby: Ruby, name: Name) -> None:
    assert ruby.get(f"/channels/{name('never')}") == {"occupied": False}


def test_s178_s179_ruby_channel_users(ruby: Ruby, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    assert ruby.get(f"/channels/{channel}/users") == {"users": []}
    wire().join(channel, "u-1")
    assert ruby.get(f"/channels/{channel}/users") == {"users": [{"id": "u-1"}]}


def test_s176_ruby_a_refused_read_is_a_bad_request_with_the_servers_text(ruby: Ruby, name: Name) -> None:
    with pytest.raises(PusherError, match="^Bad request: .+"):
        ruby.get(f"/channels/{name('news')}", info="user_count")


def test_s149_ruby_a_wrong_secret_is_an_authentication_error(target: Target, name: Name) -> None:
    stranger = Ruby(target.app(target.app_id, target.key, "another-secret"))
    with pytest.raises(AuthenticationError, match="Invalid signature"):
        stranger.trigger(name("a"), "x", "")


def test_s153_ruby_too_much_data(ruby: Ruby, name: Name) -> None:
    with pytest.raises(PusherError, match="Payload Too Large"):
        ruby.trigger(name("a"), "x", "y" * 10_241)
