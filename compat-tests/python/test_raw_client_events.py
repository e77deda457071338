"""Section 9.5: client events, on the wire."""

import json
from collections.abc import Callable

import pytest

from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def pair(wire: OpenWire, channel: str) -> tuple[Wire, Wire]:
    """Two connections on one channel; on a presence channel as users sender and receiver."""
    sender, receiver = wire(), wire()
    if channel.startswith("presence-"):
        sender.join(channel, "sender")
        receiver.join(channel, "receiver")
        sender.expect("pusher_internal:member_added", channel)
    else:
        sender.subscribe(channel)
        receiver.subscribe(channel)
    return sender, receiver


def test_s087_s130_the_others_get_it_and_the_sender_does_not(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    sender.send("client-x", {"a": 1}, channel=channel)
    sender.expect_nothing()
    frame = receiver.expect("client-x", channel)
    assert set(frame.raw) == {"event", "channel", "data"}
    assert frame.decoded() == {"a": 1}


@pytest.mark.parametrize(
    ("sent", "delivered"),
    [('{"a":1}', '{"a":1}'), ('"plain"', "plain"), ('"{\\"a\\":1}"', '{"a":1}'), ("null", "null"), ("5", "5"),
     ("[1,2]", "[1,2]"), ("true", "true"), ('""', ""), ('"\\u00fc \\ud83d\\udc0e \\u0000"', "ü 🐎 \0")],
)
def test_s088_data_is_delivered_as_a_string_once(wire: OpenWire, name: Name, sent: str, delivered: str) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    sender.send_text(f'{{"event":"client-x","channel":"{channel}","data":{sent}}}')
    assert receiver.expect("client-x", channel).data == delivered


def test_s089_presence_adds_the_senders_user_id_and_private_does_not(wire: OpenWire, name: Name) -> None:
    presence = name("presence-a")
    sender, receiver = pair(wire, presence)
    sender.send("client-x", {}, channel=presence)
    assert receiver.expect("client-x", presence).raw["user_id"] == "sender"


@pytest.mark.parametrize("stem", ["private-a", "presence-a"])
def test_s090_forged_members_are_not_forwarded(wire: OpenWire, name: Name, stem: str) -> None:
    channel = name(stem)
    sender, receiver = pair(wire, channel)
    sender.send("client-x", {}, channel=channel, user_id="forged", socket_id="1.2", extra=1)
    raw = receiver.expect("client-x", channel).raw
    expected = {"event", "channel", "data"} | ({"user_id"} if stem == "presence-a" else set())
    assert set(raw) == expected and raw.get("user_id", "sender") == "sender"


@pytest.mark.parametrize("stem", ["news", "cache-news"])
def test_s091_public_channels_carry_no_client_events(wire: OpenWire, name: Name, stem: str) -> None:
    channel = name(stem)
    sender, receiver = wire(), wire()
    for connection in (sender, receiver):
        connection.subscribe(channel)
        if stem.startswith("cache-"):
            connection.expect("pusher:cache_miss", channel)
    sender.send("client-x", {}, channel=channel)
    sender.expect_error()
    receiver.expect_nothing()


def test_s092_a_channel_not_joined_is_refused(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    receiver, sender = wire(), wire()
    receiver.subscribe(channel)
    sender.send("client-x", {}, channel=channel)
    sender.expect_error(mentions="Cannot broadcast client event")
    receiver.expect_nothing()


def test_s093_encrypted_channels_carry_no_client_events(wire: OpenWire, name: Name) -> None:
    channel = name("private-encrypted-a")
    sender, receiver = pair(wire, channel)
    sender.send("client-x", {}, channel=channel)
    sender.expect_error()
    receiver.expect_nothing()


def test_s095_the_eleventh_event_in_a_second_is_refused_with_4301(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    for number in range(40):
        sender.send("client-x", {"n": number}, channel=channel)
    answers = sender.fence()
    assert len(answers) >= 20, "forty at once cannot all be within the rate"
    assert {frame.event for frame in answers} == {"pusher:error"}
    assert {frame.data["code"] for frame in answers} == {4301}
    delivered = receiver.fence()
    assert [frame.event for frame in delivered] == ["client-x"] * (40 - len(answers))
    assert len(delivered) >= 10
    # The bucket refills: sooner or later an event is let through again.
    while True:
        sender.send("client-again", {}, channel=channel)
        if not sender.fence():
            break
    receiver.expect("client-again", channel)


def test_s096_limits_of_event_name_and_data(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    longest = "client-" + "x" * 193
    sender.send(longest, {}, channel=channel)
    receiver.expect(longest, channel)
    sender.send(longest + "x", {}, channel=channel)
    sender.expect_error()
    sender.send("client-x", "y" * 10_240, channel=channel)
    assert receiver.expect("client-x", channel).data == "y" * 10_240
    sender.send("client-x", "y" * 10_241, channel=channel)
    sender.expect_error()
    receiver.expect_nothing()


def test_s097_without_a_channel_is_an_error(wire: OpenWire) -> None:
    connection = wire()
    connection.send("client-x", {})
    connection.expect_error()
    connection.send("client-x", {}, channel=5)
    connection.expect_error()


def test_s098_without_data_is_delivered_with_an_empty_object(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    sender.send_text(json.dumps({"event": "client-x", "channel": channel}))
    assert receiver.expect("client-x", channel).data == "{}"


@pytest.mark.parametrize("event", ["message", "pusher_internal:member_added", "pusher:x", "Client-x", "client"])
def test_s099_other_names_are_refused(wire: OpenWire, name: Name, event: str) -> None:
    channel = name("private-a")
    sender, receiver = pair(wire, channel)
    sender.send(event, {"user_id": "x"}, channel=channel)
    sender.expect_error()
    receiver.expect_nothing()


def test_s100_another_connection_of_the_same_user_gets_it(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    one, two = wire(), wire()
    one.join(channel, "u-1")
    two.join(channel, "u-1")
    one.send("client-x", {}, channel=channel)
    two.expect("client-x", channel)


def test_s101_a_client_event_on_a_cache_channel_is_not_cached(wire: OpenWire, name: Name) -> None:
    channel = name("presence-cache-a")
    sender, late = wire(), wire()
    sender.join(channel, "u-1")
    sender.expect("pusher:cache_miss", channel)
    sender.send("client-x", {}, channel=channel)
    sender.expect_nothing()
    late.join(channel, "u-2")
    late.expect("pusher:cache_miss", channel)
