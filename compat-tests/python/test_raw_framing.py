"""Section 9.2: liveness and framing, on the wire."""

import contextlib
import json
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed

from support.rest import Rest
from support.wire import JAVA, PUSHER_JS, PYSHER, Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


@pytest.mark.parametrize(
    "ping",
    ['{"event":"pusher:ping","data":{}}', '{"event": "pusher:ping"}', '{"event": "pusher:ping", "data": ""}',
     '{"event":"pusher:ping","data":"{}"}', '{"event":"pusher:ping","data":null}'],
    ids=["pusher-js", "Java", "Pysher", "Go", "null"],
)
def test_s028_every_clients_ping_gets_one_pong(wire: OpenWire, ping: str) -> None:
    connection = wire()
    connection.send_text(ping)
    pong = connection.expect("pusher:pong")
    assert pong.raw in ({"event": "pusher:pong", "data": "{}"}, {"event": "pusher:pong"})
    connection.expect_nothing()


def test_s029_an_unsolicited_pong_has_no_effect(wire: OpenWire) -> None:
    connection = wire()
    connection.send("pusher:pong", {})
    connection.expect_nothing()


def test_s030_a_control_ping_is_answered_with_its_payload(wire: OpenWire) -> None:
    connection = wire()
    assert connection.ws.ping(b"abc").wait(10), "no pong with this payload"


def test_s031_many_control_pings_are_not_a_client_event_rate(wire: OpenWire) -> None:
    connection = wire()
    pongs = [connection.ws.ping(str(number).encode()) for number in range(100)]
    assert all(pong.wait(10) for pong in pongs)
    connection.expect_nothing()


@pytest.mark.parametrize(
    "text", ["not json", '{"data":{}}', "[]", '"x"', "5", "null", "", "{", '{"event":5}', "\u0000"]
)
def test_s036_a_text_that_is_no_event_is_an_error_and_nothing_more(wire: OpenWire, text: str) -> None:
    connection = wire()
    connection.send_text(text)
    connection.expect_error()
    connection.expect_nothing()


def test_s036_deep_nesting_is_an_error_and_nothing_more(wire: OpenWire) -> None:
    connection = wire()
    connection.send_text('{"event":"pusher:subscribe","data":' + "[" * 20_000 + "]" * 20_000 + "}")
    connection.expect_error()
    connection.expect_nothing()


def test_s037_a_binary_frame_is_closed_with_1003(wire: OpenWire) -> None:
    connection = wire()
    connection.ws.send(b'{"event":"pusher:ping"}')
    assert connection.expect_close() == (1003, [])


def test_s038_a_text_over_the_limit_is_closed_with_1009(wire: OpenWire) -> None:
    connection = wire()
    with contextlib.suppress(ConnectionClosed):
        connection.send("pusher:ping", "x" * 70_000)
    assert connection.expect_close() == (1009, [])


def test_s038_fragments_that_add_up_to_more_than_the_limit_are_closed_with_1009(wire: OpenWire) -> None:
    connection = wire()
    # The server may hang up before the last fragment has left.
    with contextlib.suppress(ConnectionClosed):
        connection.send_text(["x" * 30_000] * 3)
    assert connection.expect_close() == (1009, [])


def test_s038_a_text_under_the_limit_is_handled(wire: OpenWire) -> None:
    connection = wire()
    connection.send("pusher:ping", "x" * 65_000)
    connection.expect("pusher:pong")


def test_s039_fragments_are_one_message(wire: OpenWire) -> None:
    connection = wire()
    connection.send_text(['{"event":"pus', "her:ping", '","data":{}', "}"])
    connection.expect("pusher:pong")
    connection.expect_nothing()


def test_s040_an_unknown_event_is_named_in_the_error(wire: OpenWire) -> None:
    connection = wire()
    connection.send("pusher:frobnicate", {})
    connection.expect_error(mentions="pusher:frobnicate")
    connection.expect_nothing()


def test_s041_unknown_members_are_ignored(wire: OpenWire, name: Name) -> None:
    channel = name("news")
    connection = wire()
    connection.send("pusher:subscribe", {"channel": channel, "tw_x": [1]}, userId=None, extra={"a": 1})
    connection.expect("pusher_internal:subscription_succeeded", channel)


@pytest.mark.parametrize("query", [PUSHER_JS, JAVA, PYSHER], ids=["pusher-js", "Java", "Pysher"])
def test_s042_data_is_a_string_in_every_frame_but_the_error(
    wire: OpenWire, rest: Rest, name: Name, query: str
) -> None:
    channel, presence, cache = name("private-a"), name("presence-a"), name("cache-a")
    watcher, other = wire(query=query), wire(query=query)
    user = name("u")
    watcher.sign_in({"id": user, "watchlist": [name("w")]})
    watcher.expect("pusher_internal:watchlist_events").decoded()
    watcher.subscribe(channel)
    watcher.subscribe(cache)
    assert watcher.expect("pusher:cache_miss").data == "{}"
    watcher.join(presence, "u-1")
    other.subscribe(channel)
    other.join(presence, "u-2")
    other.send("client-x", {"a": 1}, channel=channel)
    other.close()
    rest.publish(channel, "object", json.dumps({"a": 1}))
    rest.post("/events", {"name": "object", "channels": [channel], "data": {"a": 1}})
    rest.publish(channel, "marker", "x")
    frames = [watcher.established, *watcher.until("marker"), *watcher.fence()]
    assert {frame.event for frame in frames} >= {"pusher:connection_established", "client-x", "object"}
    for frame in frames:
        assert "data" not in frame.raw or isinstance(frame.data, str), frame.raw
