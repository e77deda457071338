"""pusher-http-dotnet 5.0.0: signature first in the query, `Accept: application/json`, replies read as JSON objects.

`TriggerResult` deserialises every body, of errors too, and throws when it is not a JSON object.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from support.raw_http import Reply, send
from support.signing import auth_pairs, hmac_hex, joined, md5_hex
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


class TriggerResponseException(Exception):
    """The response body from the Pusher HTTP endpoint could not be parsed as JSON."""


@dataclass(frozen=True)
class TriggerResult:
    status: int
    body: str
    channel_attributes: dict[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "TriggerResult":
        try:
            parsed = json.loads(reply.body)
            return cls(reply.status, reply.text, dict(parsed.get("channels") or {}))
        except (ValueError, AttributeError) as error:
            raise TriggerResponseException(reply.text) from error


class DotNet:
    """`new Pusher(appId, key, secret, new PusherOptions { HostName = …, Port = …, Encrypted = false })`."""

    def __init__(self, target: Target):
        self.target = target

    def call(self, method: str, resource: str, params: dict[str, str] | None = None, body: Any = None) -> Reply:
        path = f"/apps/{self.target.app_id}{resource}"
        pairs = [*auth_pairs(self.target), *(params or {}).items()]
        headers = [
            ("Host", self.target.authority),
            ("Accept", "application/json"),
            ("Pusher-Library-Name", "pusher-http-dotnet"),
            ("Pusher-Library-Version", "5.0.0"),
        ]
        content = b""
        if body is not None:
            content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
            pairs.append(("body_md5", md5_hex(content)))
            headers += [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(content)))]
        query = joined(sorted(pairs))
        signature = hmac_hex(self.target.secret, f"{method}\n{path}\n{query}")
        return send(self.target, method, f"{path}?auth_signature={signature}&{query}", headers, content)

    def trigger(
        self, channels: list[str], event: str, data: Any, socket_id: str | None = None, info: list[str] | None = None
    ) -> TriggerResult:
        encoded = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        body: dict[str, Any] = {"name": event, "data": encoded, "channels": channels}
        if socket_id:
            body["socket_id"] = socket_id
        if info:
            body["info"] = ",".join(info)
        return TriggerResult.of(self.call("POST", "/events", body=body))

    def trigger_batch(self, events: list[dict[str, Any]]) -> TriggerResult:
        return TriggerResult.of(self.call("POST", "/batch_events", body={"batch": events}))


@pytest.fixture
def dotnet(target: Target) -> DotNet:
    return DotNet(target)


def test_s145_s165_s227_dotnet_trigger_with_the_signature_first(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    result = dotnet.trigger([channel], "order.paid", {"note": "Žluťoučký 🐎"})
    assert (result.status, result.channel_attributes) == (200, {})
    assert subscriber.expect("order.paid", channel).decoded() == {"note": "Žluťoučký 🐎"}


def test_s132_s227_dotnet_trigger_with_socket_id(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("chat")
    author, reader = wire(), wire()
    author.subscribe(channel)
    reader.subscribe(channel)
    assert dotnet.trigger([channel], "said", "hi", socket_id=author.socket_id).status == 200
    assert dotnet.trigger([channel], "marker", "").status == 200
    reader.expect("said", channel)
    assert author.until("marker") == []


def test_s163_dotnet_trigger_with_info_returns_channel_attributes(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    result = dotnet.trigger([channel], "x", {}, info=["user_count"])
    assert result.channel_attributes == {channel: {"user_count": 1}}


def test_s227_dotnet_trigger_batch(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("feed")
    subscriber = wire()
    subscriber.subscribe(channel)
    result = dotnet.trigger_batch([{"name": f"item-{n}", "data": "{}", "channel": channel} for n in range(3)])
    assert result.status == 200
    for n in range(3):
        subscriber.expect(f"item-{n}", channel)


def test_s150_dotnet_an_error_is_a_json_object_because_it_accepts_json(dotnet: DotNet, name: Name) -> None:
    result = dotnet.trigger([name("a")], "pusher:reserved", {})
    assert result.status == 400
    answer = json.loads(result.body)
    assert answer["status"] == 400 and isinstance(answer["error"], str)


def test_s149_s150_dotnet_an_authentication_error_is_a_json_object_too(target: Target, name: Name) -> None:
    stranger = DotNet(target.app(target.app_id, target.key, "another-secret"))
    result = stranger.trigger([name("a")], "x", {})
    assert result.status == 401
    assert "Invalid signature" in json.loads(result.body)["error"]


def test_s153_dotnet_too_much_data_is_a_json_object_too(dotnet: DotNet, name: Name) -> None:
    assert dotnet.trigger([name("a")], "x", "y" * 10_241).status == 413


def test_s171_dotnet_state_of_channels(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    reply = dotnet.call("GET", "/channels", {"info": "user_count", "filter_by_prefix": "presence-"})
    assert reply.status == 200 and reply.json()["channels"][channel] == {"user_count": 1}


def test_s173_dotnet_live_test_unknown_attribute_of_channels(dotnet: DotNet) -> None:
    reply = dotnet.call("GET", "/channels", {"info": "does-not-exist"})
    assert reply.status == 400
    assert "info should be a comma separated list of attributes" in reply.text


def test_s164_dotnet_live_test_unknown_attribute_of_a_channel(dotnet: DotNet, name: Name) -> None:
    reply = dotnet.call("GET", f"/channels/{name('presence-a')}", {"info": "does-not-exist"})
    assert reply.status == 400
    assert "info should be a comma separated list of attributes" in reply.text


def test_s144_dotnet_state_of_a_channel_with_raw_special_characters(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a@x,y.z;q=1")
    wire().join(channel, "u-1")
    reply = dotnet.call("GET", f"/channels/{channel}", {"info": "user_count"})
    assert (reply.status, reply.json()) == (200, {"occupied": True, "user_count": 1})


def test_s178_s179_dotnet_users_of_a_presence_channel(dotnet: DotNet, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    assert dotnet.call("GET", f"/channels/{channel}/users").json() == {"users": []}
    wire().join(channel, "u-1")
    assert dotnet.call("GET", f"/channels/{channel}/users").json() == {"users": [{"id": "u-1"}]}


def test_s180_dotnet_live_test_users_of_a_public_channel(dotnet: DotNet, name: Name) -> None:
    assert dotnet.call("GET", f"/channels/{name('news')}/users").status == 400
