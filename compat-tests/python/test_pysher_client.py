"""Pysher 1.0.8: protocol 6, pings at once, reacts to error frames and not to close codes."""

import json
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pysher
import pytest

from support.rest import Rest
from support.signing import user_auth
from support.target import Target
from support.wire import Wire

TIMEOUT_SECONDS = 10
# `disconnect` closes the socket and then joins a thread that does not always notice; it is a daemon.
DISCONNECT_SECONDS = 1

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


@dataclass(frozen=True)
class Seen:
    event: str
    data: Any
    channel: str | None


class Client:
    """A Pysher client whose events are also written down, in order, before its own channels get them."""

    def __init__(self, target: Target, **options: Any):
        settings = {"secret": target.secret, "reconnect_interval": 1, **options}
        self.pusher = pysher.Pusher(
            settings.pop("key", target.key), custom_host=target.ws_host, port=target.ws_port, secure=False, **settings
        )
        self.seen: queue.Queue[Seen] = queue.Queue()
        connection = self.pusher.connection
        deliver = connection.event_handler

        def on_channel_event(event: str, data: Any, channel: str) -> None:
            deliver(event, data, channel)
            self.seen.put(Seen(event, data, channel))

        connection.event_handler = on_channel_event
        for event in ("pusher:connection_established", "pusher:error", "pusher:pong"):
            connection.bind(event, lambda data, event=event: self.seen.put(Seen(event, data, None)))
        self.pusher.connect()

    def expect(self, event: str, channel: str | None = None) -> Seen:
        """Waits for this event; pongs come whenever Pysher pings and are skipped."""
        while True:
            seen = self.seen.get(timeout=TIMEOUT_SECONDS)
            if seen.event != "pusher:pong" or event == "pusher:pong":
                assert (seen.event, seen.channel) == (event, channel), f"expected {event}, got {seen}"
                return seen

    def connected(self) -> "Client":
        self.expect("pusher:connection_established")
        return self

    def subscribe(self, channel: str) -> Any:
        subscription = self.pusher.subscribe(channel)
        self.expect("pusher_internal:subscription_succeeded", channel)
        return subscription


@pytest.fixture
def client(target: Target) -> Iterator[Callable[..., Client]]:
    opened: list[Client] = []

    def open_client(**options: Any) -> Client:
        opened.append(Client(target, **options))
        return opened[-1]

    yield open_client
    for one in opened:
        if one.pusher.connection.is_alive():
            one.pusher.disconnect(timeout=DISCONNECT_SECONDS)


OpenClient = Callable[..., Client]


def test_s007_pysher_connects_with_protocol_6(client: OpenClient) -> None:
    connected = client()
    data = connected.expect("pusher:connection_established").data
    assert isinstance(data, str), "Pysher raises when this is an object"
    assert connected.pusher.connection.state == "connected"
    assert connected.pusher.connection.socket_id == json.loads(data)["socket_id"]


def test_s028_the_ping_that_pysher_sends_on_open_is_answered(client: OpenClient) -> None:
    connected = client().connected()
    connected.expect("pusher:pong")
    assert connected.pusher.connection.pong_received


def test_s043_a_public_channel_delivers_published_events(client: OpenClient, rest: Rest, name: Name) -> None:
    channel = name("news")
    connected = client().connected()
    received: queue.Queue[str] = queue.Queue()
    connected.subscribe(channel).bind("headline", received.put)
    rest.publish(channel, "headline", '{"n":1}')
    assert received.get(timeout=TIMEOUT_SECONDS) == '{"n":1}'


def test_s048_an_unsubscribed_channel_is_silent(client: OpenClient, rest: Rest, name: Name) -> None:
    left, kept = name("left"), name("kept")
    connected = client().connected()
    connected.subscribe(left)
    connected.subscribe(kept)
    connected.pusher.unsubscribe(left)
    # Commands are processed in order: the error frame says that the one before it has been.
    connected.pusher.connection.send_event("pusher:unsubscribe", {"channel": left})
    connected.expect("pusher:error")
    rest.publish(left, "late")
    rest.publish(kept, "marker")
    connected.expect("marker", kept)


def test_s057_a_private_channel_signed_by_pysher_itself(client: OpenClient, rest: Rest, name: Name) -> None:
    channel = name("private-orders")
    connected = client().connected()
    connected.subscribe(channel)
    rest.publish(channel, "order", '{"id":7}')
    assert connected.expect("order", channel).data == '{"id":7}'


def test_s069_s071_presence_members_see_each_other(client: OpenClient, name: Name) -> None:
    channel = name("presence-room")
    ada = client(user_data={"user_id": "u-1", "user_info": {"name": "Ada"}}).connected()
    ada.pusher.subscribe(channel)
    first = json.loads(ada.expect("pusher_internal:subscription_succeeded", channel).data)["presence"]
    assert first == {"count": 1, "ids": ["u-1"], "hash": {"u-1": {"name": "Ada"}}}
    lin = client(user_data={"user_id": "u-2", "user_info": {"name": "Lin"}}).connected()
    lin.pusher.subscribe(channel)
    second = json.loads(lin.expect("pusher_internal:subscription_succeeded", channel).data)["presence"]
    assert second["count"] == 2 and sorted(second["ids"]) == ["u-1", "u-2"]
    added = json.loads(ada.expect("pusher_internal:member_added", channel).data)
    assert added == {"user_id": "u-2", "user_info": {"name": "Lin"}}
    lin.pusher.disconnect(timeout=DISCONNECT_SECONDS)
    assert json.loads(ada.expect("pusher_internal:member_removed", channel).data) == {"user_id": "u-2"}


def test_s087_s088_a_client_event_of_pysher_reaches_the_others_as_a_string(
    client: OpenClient, wire: OpenWire, name: Name
) -> None:
    channel = name("private-doc")
    other = wire()
    other.subscribe(channel)
    subscription = client().connected().subscribe(channel)
    subscription.trigger("client-cursor", {"x": 3})
    assert other.expect("client-cursor", channel).decoded() == {"x": 3}


def test_s061_a_refused_subscription_does_not_disconnect_pysher(client: OpenClient, name: Name) -> None:
    """An error frame with a code from 4000 to 4299 would: it must be null."""
    connected = client().connected()
    connected.pusher.subscribe(name("private-a"), auth=f"{connected.pusher.key}:{'0' * 64}")
    error = connected.expect("pusher:error").data
    assert error["code"] is None and "signature" in error["message"].lower()
    connected.subscribe(name("news"))
    assert connected.pusher.connection.state == "connected"


def test_s012_pysher_gives_up_on_an_unknown_key_because_it_reads_the_frame(client: OpenClient) -> None:
    refused = client(key="unknown-key")
    assert refused.expect("pusher:error").data["code"] == 4001
    refused.pusher.connection.join(TIMEOUT_SECONDS)
    assert not refused.pusher.connection.is_alive(), "Pysher keeps reconnecting"
    assert refused.pusher.connection.disconnect_called


def test_s181_pysher_stays_away_after_a_kick(client: OpenClient, rest: Rest, name: Name, target: Target) -> None:
    """Pysher cannot sign in by itself; the frame is sent through its own connection."""
    user_data = json.dumps({"id": name("u")})
    connected = client().connected()
    connection = connected.pusher.connection
    connection.bind("pusher:signin_success", lambda data: connected.seen.put(Seen("signed in", data, None)))
    connection.send_event(
        "pusher:signin", {"auth": user_auth(target, connection.socket_id, user_data), "user_data": user_data}
    )
    connected.expect("signed in")
    reply = rest.post(f"/users/{json.loads(user_data)['id']}/terminate_connections", {})
    assert (reply.status, reply.json()) == (200, {})
    assert connected.expect("pusher:error").data["code"] == 4009
    connection.join(TIMEOUT_SECONDS)
    assert not connection.is_alive()
