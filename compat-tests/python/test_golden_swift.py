"""pusher-http-swift 0.1.0: what URLComponents and JSONEncoder make of its requests.

Parameters are signed in the order they are written. `Event.encode` writes every optional, so a body carries
`"channel":null` or `"channels":null` and `"socket_id":null`; keys are sorted and slashes escaped.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.raw_http import Reply, send
from support.signing import auth_pairs, hmac_hex, joined, md5_hex
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def encode(value: Any) -> str:
    """`JSONEncoder` with `.sortedKeys`: raw UTF-8, slashes escaped."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).replace("/", "\\/")


class Swift:
    """`Pusher(options: PusherClientOptions(appId:, key:, secret:, …, host:, port:, scheme: "http"))`."""

    def __init__(self, target: Target):
        self.target = target

    def call(self, method: str, path: str, params: list[tuple[str, str]] | None = None, body: Any = None) -> Reply:
        path = f"/apps/{self.target.app_id}{path}"
        pairs = auth_pairs(self.target)
        headers = [("Host", self.target.authority)]
        content = b""
        if body is not None:
            content = encode(body).encode()
            pairs.append(("body_md5", md5_hex(content)))
            headers.append(("Content-Type", "application/json"))
        pairs += params or []
        # Not sorted: the documented parameters happen to be in order.
        signature = hmac_hex(self.target.secret, f"{method}\n{path}\n{joined(pairs)}")
        headers += [
            ("Connection", "keep-alive"),
            ("Accept", "*/*"),
            ("User-Agent", "App/1 CFNetwork/1410.0.3 Darwin/22.6.0"),
            ("X-Pusher-Library", "pusher-http-swift 0.1.0"),
            ("Accept-Language", "en-GB,en;q=0.9"),
            ("Accept-Encoding", "gzip, deflate"),
        ]
        if body is not None:
            headers.append(("Content-Length", str(len(content))))
        query = joined([*pairs, ("auth_signature", signature)])
        return send(self.target, method, f"{path}?{query}", headers, content)

    def event(
        self, name: str, data: Any, channel: str | None = None, channels: list[str] | None = None,
        socket_id: str | None = None, info: str | None = None,
    ) -> dict[str, Any]:
        body = {"name": name, "data": encode(data), "channel": channel, "channels": channels, "socket_id": socket_id}
        return body if info is None else {**body, "info": info}

    def trigger(self, **event: Any) -> Any:
        return decoded(self.call("POST", "/events", body=self.event(**event)))


def decoded(reply: Reply) -> Any:
    """A `Decodable` container is a JSON object."""
    assert reply.status == 200, reply.text
    assert reply.headers.get("content-encoding", "identity") == "identity"
    answer = reply.json()
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def swift(target: Target) -> Swift:
    return Swift(target)


def test_s151_s160_swift_one_channel_with_null_channels_and_null_socket_id(
    swift: Swift, wire: OpenWire, name: Name
) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    assert swift.trigger(name="order.paid", data={"url": "a/b ü"}, channel=channel) == {}
    assert subscriber.expect("order.paid", channel).data == '{"url":"a\\/b ü"}'


def test_s151_s160_swift_several_channels_with_null_channel(swift: Swift, wire: OpenWire, name: Name) -> None:
    channels = [name("a"), name("b")]
    subscriber = wire()
    for channel in channels:
        subscriber.subscribe(channel)
    assert swift.trigger(name="tick", data="x", channels=channels) == {}
    assert {subscriber.expect("tick").channel for _ in channels} == set(channels)


def test_s132_swift_socket_id_is_left_out(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel = name("chat")
    author = wire()
    author.subscribe(channel)
    swift.trigger(name="said", data="hi", channel=channel, socket_id=author.socket_id)
    swift.trigger(name="marker", data="", channel=channel)
    assert author.until("marker") == []


def test_s163_swift_attributes_of_the_channels_triggered_on(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    answer = swift.trigger(name="x", data="", channel=channel, info="user_count")
    assert answer["channels"] == {channel: {"user_count": 1}}


def test_s167_s168_swift_batch_items_carry_nulls_too(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel, presence = name("feed"), name("presence-feed")
    subscriber = wire()
    subscriber.subscribe(channel)
    subscriber.join(presence, "u-1")
    batch = [
        swift.event(name="first", data={"n": 1}, channel=channel),
        swift.event(name="second", data={"n": 2}, channel=presence, info="user_count"),
    ]
    assert decoded(swift.call("POST", "/batch_events", body={"batch": batch})) == {"batch": [{}, {"user_count": 1}]}
    received = {frame.event: frame.channel for frame in (subscriber.next(), subscriber.next())}
    assert received == {"first": channel, "second": presence}


def test_s171_swift_channels_by_prefix_with_user_count(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    answer = decoded(swift.call("GET", "/channels", [("filter_by_prefix", "presence-"), ("info", "user_count")]))
    assert answer["channels"][channel] == {"user_count": 1}


def test_s144_s175_swift_channel_with_every_special_character_raw(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a@x,y.z;q=1")
    assert decoded(swift.call("GET", f"/channels/{channel}")) == {"occupied": False}
    wire().join(channel, "u-1")
    answer = decoded(swift.call("GET", f"/channels/{channel}", [("info", "user_count")]))
    assert answer == {"occupied": True, "user_count": 1}


def test_s178_s179_swift_users(swift: Swift, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    assert decoded(swift.call("GET", f"/channels/{channel}/users")) == {"users": []}
    wire().join(channel, "u-1")
    assert decoded(swift.call("GET", f"/channels/{channel}/users")) == {"users": [{"id": "u-1"}]}
