"""pusher-http-php 7.2.6 under Guzzle 7, and Laravel on top of it: the exact requests they send.

There is no PHP here. The class below writes what the SDK's source writes, byte for byte: `query` given to Guzzle
as an array goes through `http_build_query(…, PHP_QUERY_RFC3986)` after it was signed unencoded; `options.path` is
put in front of a path that was signed without it.
"""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from support.raw_http import Reply, send
from support.signing import auth_pairs, hmac_hex, joined, md5_hex
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


class ApiErrorException(Exception):
    """What the SDK throws for every status but 200."""


def json_encode(value: Any) -> str:
    """PHP's default flags: no spaces, slashes and everything beyond ASCII escaped."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/")


def json_decode_object(body: bytes) -> SimpleNamespace:
    """Methods are typed to return `object`: an array or a bare value is a TypeError there, and here."""
    decoded = json.loads(body, object_hook=lambda members: SimpleNamespace(**members))
    if not isinstance(decoded, SimpleNamespace):
        raise TypeError(f"Return value must be of type object: {body!r}")
    return decoded


class Php:
    """`new Pusher\\Pusher($key, $secret, $app_id, ['host' => …, 'port' => …, 'useTLS' => false])`."""

    def __init__(self, target: Target, path: str = ""):
        self.target = target
        self.path = path

    def call(self, method: str, path: str, params: dict[str, str], body: bytes | None = None) -> Reply:
        path = f"/apps/{self.target.app_id}{path}"
        if body is not None:
            params = {**params, "body_md5": md5_hex(body)}
        pairs = sorted([*auth_pairs(self.target), *params.items()])
        signature = hmac_hex(self.target.secret, f"{method}\n{path}\n{joined(pairs)}")
        pairs.append(("auth_signature", signature))
        query = "&".join(f"{quote(key, '')}={quote(value, '')}" for key, value in pairs)
        headers = [
            ("Host", self.target.authority),
            ("User-Agent", "GuzzleHttp/7"),
            ("Content-Type", "application/json"),
            ("X-Pusher-Library", "pusher-http-php 7.2.6"),
        ]
        if body is not None:
            headers.append(("Content-Length", str(len(body))))
        return send(self.target, method, f"{self.path}{path}?{query}", headers, body or b"")

    def answer(self, reply: Reply) -> SimpleNamespace:
        if reply.status != 200:
            raise ApiErrorException(reply.text)
        return json_decode_object(reply.body)

    def event(
        self, channels: list[str], event: str, data: Any, params: dict[str, Any] | None = None,
        info: str | None = None, already_encoded: bool = False,
    ) -> dict[str, Any]:
        """The SDK encodes strings as well: `"hi"` becomes `"\\"hi\\""`. One channel goes as `channel`."""
        post: dict[str, Any] = {"name": event, "data": data if already_encoded else json_encode(data)}
        post.update({"channel": channels[0]} if len(channels) == 1 else {"channels": channels})
        if info is not None:
            post["info"] = info
        return {**post, **(params or {})}

    def trigger(self, channels: str | list[str], event: str, data: Any, **options: Any) -> SimpleNamespace:
        names = [channels] if isinstance(channels, str) else channels
        body = json_encode(self.event(names, event, data, **options)).encode()
        return self.answer(self.call("POST", "/events", {}, body))

    def trigger_batch(self, batch: list[dict[str, Any]]) -> SimpleNamespace:
        events = [
            self.event(
                [item["channel"]], item["name"], item["data"],
                {"socket_id": item["socket_id"]} if "socket_id" in item else None, item.get("info"),
            )
            for item in batch
        ]
        return self.answer(self.call("POST", "/batch_events", {}, json_encode({"batch": events}).encode()))

    def get(self, path: str, params: dict[str, str] | None = None) -> SimpleNamespace:
        return self.answer(self.call("GET", path, params or {}))

    def get_channels(self, params: dict[str, str] | None = None) -> dict[str, Any]:
        """`get_object_vars($result->channels)` is a TypeError when `channels` is an array."""
        channels = self.get("/channels", params).channels
        assert isinstance(channels, SimpleNamespace), "channels must be an object"
        return vars(channels)

    def terminate_user_connections(self, user_id: str) -> SimpleNamespace:
        return self.answer(self.call("POST", f"/users/{user_id}/terminate_connections", {}, b"{}"))


@pytest.fixture
def php(target: Target) -> Php:
    return Php(target)


def test_s226_s151_php_trigger_sends_a_single_channel_as_channel(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    assert vars(php.trigger(channel, "order.paid", {"id": 7})) == {}
    assert subscriber.expect("order.paid", channel).data == '{"id":7}'


def test_s226_php_trigger_on_several_channels(php: Php, wire: OpenWire, name: Name) -> None:
    channels = [name("a"), name("b")]
    subscriber = wire()
    for channel in channels:
        subscriber.subscribe(channel)
    php.trigger(channels, "tick", "hi")
    assert {subscriber.expect("tick").channel for _ in channels} == set(channels)


def test_s226_s131_php_encodes_a_string_once_more_and_it_arrives_that_way(
    php: Php, wire: OpenWire, name: Name
) -> None:
    channel = name("a")
    subscriber = wire()
    subscriber.subscribe(channel)
    php.trigger(channel, "said", "hi / ü")
    assert subscriber.expect("said").data == '"hi \\/ \\u00fc"'
    php.trigger(channel, "said", "as it is", already_encoded=True)
    assert subscriber.expect("said").data == "as it is"


def test_s226_php_trigger_batch_mixes_items_with_and_without_info(php: Php, wire: OpenWire, name: Name) -> None:
    channel, presence = name("a"), name("presence-a")
    subscriber = wire()
    subscriber.subscribe(channel)
    subscriber.join(presence, "u-1")
    result = php.trigger_batch([
        {"channel": channel, "name": "first", "data": {"n": 1}},
        {"channel": presence, "name": "second", "data": {"n": 2}, "info": "user_count"},
    ])
    assert [vars(item) for item in result.batch] == [{}, {"user_count": 1}]
    # Order is promised within a channel, not across.
    received = {frame.event: frame.channel for frame in (subscriber.next(), subscriber.next())}
    assert received == {"first": channel, "second": presence}


def test_s226_php_trigger_batch_without_info_answers_an_object(php: Php, name: Name) -> None:
    assert isinstance(php.trigger_batch([{"channel": name("a"), "name": "x", "data": ""}]), SimpleNamespace)


def test_s144_s226_php_get_channels_percent_encodes_what_it_signed_raw(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a@x,y.z;q=1")
    wire().join(channel, "u-1")
    channels = php.get_channels({"filter_by_prefix": "presence-a@x,y.z;q=1", "info": "user_count"})
    assert vars(channels[channel]) == {"user_count": 1}


def test_s144_php_a_comma_in_info_is_percent_encoded_on_the_wire(php: Php, name: Name) -> None:
    """Whether both attributes are allowed here is another question: it must not be an authentication error."""
    query = {"filter_by_prefix": name("presence-"), "info": "user_count,subscription_count"}
    reply = php.call("GET", "/channels", query)
    assert reply.status in (200, 400), reply.text


def test_s170_s226_php_get_channels_without_channels_is_an_object(php: Php, name: Name) -> None:
    assert php.get_channels({"filter_by_prefix": name("nobody")}) == {}


def test_s226_php_get_channel_info(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    assert vars(php.get(f"/channels/{channel}", {"info": "user_count"})) == {"occupied": True, "user_count": 1}
    assert vars(php.get(f"/channels/{name('never')}")) == {"occupied": False}


def test_s226_s178_php_get_presence_users(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    wire().join(channel, "u-1")
    assert [user.id for user in php.get(f"/channels/{channel}/users").users] == ["u-1"]
    assert php.get(f"/channels/{name('presence-empty')}/users").users == []


def test_s226_s181_php_terminate_user_connections(php: Php, wire: OpenWire, name: Name) -> None:
    user = name("u")
    connection = wire()
    connection.sign_in({"id": user})
    assert vars(php.terminate_user_connections(user)) == {}
    assert connection.expect_close()[0] == 4009


def test_s150_php_shows_the_body_of_an_error_as_its_message(php: Php, name: Name) -> None:
    with pytest.raises(ApiErrorException, match=r"^[^{].*\n$"):
        php.get(f"/channels/{name('news')}", {"info": "user_count"})


def test_s162_laravel_event_class_names_are_delivered_literally(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    php.trigger(channel, "App\\Events\\OrderPaid", {"order": {"id": 7}})
    assert subscriber.expect("App\\Events\\OrderPaid", channel).decoded() == {"order": {"id": 7}}


def test_s222_laravel_to_others_skips_the_socket_of_the_request(php: Php, wire: OpenWire, name: Name) -> None:
    channels = [name("a"), name("b")]
    author, reader = wire(), wire()
    for channel in channels:
        author.subscribe(channel)
        reader.subscribe(channel)
    php.trigger(channels, "said", {}, params={"socket_id": author.socket_id})
    php.trigger(channels, "marker", {})
    assert sorted(reader.next().event for _ in range(4)) == ["marker", "marker", "said", "said"]
    assert [author.next().event for _ in channels] == ["marker", "marker"]


def test_s220_laravel_broadcasts_to_250_channels_in_three_requests(php: Php, wire: OpenWire, name: Name) -> None:
    channels = [name(f"c{number}") for number in range(250)]
    subscriber = wire()
    for channel in channels:
        subscriber.subscribe_only(channel)
    # Channels answer in an order of their own where several nodes have to agree.
    answers = [subscriber.expect("pusher_internal:subscription_succeeded").channel for _ in channels]
    assert sorted(map(str, answers)) == sorted(channels)
    for start in (0, 100, 200):
        php.trigger(channels[start : start + 100], "announced", {"n": 1})
    assert {subscriber.expect("announced").channel for _ in channels} == set(channels)


def test_s221_laravel_broadcasts_to_one_channel_with_channel(php: Php, wire: OpenWire, name: Name) -> None:
    channel = name("private-App.Models.User.1")
    subscriber = wire()
    subscriber.subscribe(channel)
    php.trigger([channel], "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", {"type": "x"})
    subscriber.expect("Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", channel)
