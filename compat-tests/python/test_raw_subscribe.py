"""Section 9.3: subscribe and unsubscribe, on the wire."""

import json
from collections.abc import Callable

import pytest

from support.rest import Rest
from support.signing import channel_auth
from support.target import Target
from support.wire import JAVA, PUSHER_JS, PYSHER, Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def test_s043_the_success_frame_is_exactly_this(wire: OpenWire, name: Name) -> None:
    channel = name("news")
    frame = wire().subscribe(channel)
    assert frame.raw == {"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"}


@pytest.mark.parametrize("extra", [{"auth": ""}, {"auth": None}, {"auth": "bogus", "channel_data": "not json"}])
def test_s044_auth_of_a_public_channel_is_ignored(wire: OpenWire, name: Name, extra: dict[str, str | None]) -> None:
    channel = name("news")
    connection = wire()
    connection.subscribe_only(channel, **extra)
    assert connection.expect("pusher_internal:subscription_succeeded", channel).data == "{}"


def test_s045_data_may_be_a_string_that_holds_json(wire: OpenWire, name: Name) -> None:
    channel = name("news")
    connection = wire()
    connection.send("pusher:subscribe", json.dumps({"channel": channel}))
    connection.expect("pusher_internal:subscription_succeeded", channel)


@pytest.mark.parametrize(
    "data", ["{}", '{"channel":5}', '{"channel":null}', '{"channel":{}}', '{"channel":["a"]}', "null", "[]", '"x"', "7"]
)
def test_s046_a_channel_that_is_no_string_is_an_error(wire: OpenWire, data: str) -> None:
    connection = wire()
    connection.send_text(f'{{"event":"pusher:subscribe","data":{data}}}')
    connection.expect_error()
    connection.expect_nothing()


def test_s046_subscribe_without_data_is_an_error(wire: OpenWire) -> None:
    connection = wire()
    connection.send("pusher:subscribe")
    connection.expect_error()
    connection.expect_nothing()


def test_s047_a_second_subscribe_is_refused_and_events_still_arrive_once(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("news")
    connection = wire()
    connection.subscribe(channel)
    connection.subscribe_only(channel)
    connection.expect_error(mentions=f"Existing subscription to channel {channel}")
    connection.expect_nothing()
    rest.publish(channel, "x")
    rest.publish(channel, "marker")
    assert [frame.event for frame in connection.until("marker")] == ["x"]


def test_s048_unsubscribe_is_not_acknowledged_and_ends_delivery(wire: OpenWire, rest: Rest, name: Name) -> None:
    left, kept = name("left"), name("kept")
    connection = wire()
    connection.subscribe(left)
    connection.subscribe(kept)
    connection.send("pusher:unsubscribe", {"channel": left})
    connection.expect_nothing()
    rest.publish(left, "x")
    rest.publish(kept, "marker")
    assert connection.until("marker") == []


def test_s049_unsubscribe_from_a_channel_not_held_is_an_error(wire: OpenWire, name: Name) -> None:
    connection = wire()
    connection.send("pusher:unsubscribe", {"channel": name("news")})
    connection.expect_error(mentions="No current subscription")
    connection.expect_nothing()


def test_s050_a_channel_can_be_joined_again(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("private-a")
    connection = wire()
    connection.subscribe(channel)
    connection.send("pusher:unsubscribe", {"channel": channel})
    connection.subscribe(channel)
    rest.publish(channel, "x")
    connection.expect("x", channel)


def test_s051_s174_a_disconnect_vacates_the_channel(wire: OpenWire, rest: Rest, name: Name) -> None:
    """A presence channel, so that the departure is seen and need not be waited for."""
    channel, alone = name("presence-a"), name("presence-alone")
    watcher, leaver = wire(), wire()
    watcher.join(channel, "u-1")
    leaver.join(alone, "u-2")
    leaver.join(channel, "u-2")
    watcher.expect("pusher_internal:member_added", channel)
    assert rest.get(f"/channels/{alone}").json() == {"occupied": True}
    leaver.close()
    watcher.expect("pusher_internal:member_removed", channel)
    assert rest.get(f"/channels/{channel}", info="user_count").json() == {"occupied": True, "user_count": 1}
    assert alone not in rest.get("/channels").json()["channels"]
    assert rest.get(f"/channels/{alone}").json() == {"occupied": False}


@pytest.mark.parametrize("channel", ["a b", "ä", "a/b", "a:b", "", "a\n", "#", "a#b", "é" * 3])
def test_s052_names_outside_the_grammar_are_refused(wire: OpenWire, channel: str) -> None:
    connection = wire()
    connection.subscribe_only(channel)
    connection.expect_error()
    connection.expect_nothing()


def test_s053_every_allowed_character_is_allowed(wire: OpenWire) -> None:
    wire().subscribe("A-z_0=9@x,y.z;q")


def test_s054_a_name_may_have_200_characters_and_no_more(wire: OpenWire) -> None:
    connection = wire()
    connection.subscribe("n" * 200)
    connection.subscribe_only("n" * 201)
    connection.expect_error()


@pytest.mark.parametrize("channel", ["#x", "#server-to-user-u-1", "#server-to-user-"])
def test_s055_s121_hash_channels_are_reserved(wire: OpenWire, channel: str) -> None:
    connection = wire()
    connection.subscribe_only(channel, auth="")
    connection.expect_error()
    connection.expect_nothing()


@pytest.mark.parametrize("channel", ["Private-x", "PRIVATE-x", "Presence-x", "private", "presencex"])
def test_s056_prefixes_are_case_sensitive_and_whole(wire: OpenWire, channel: str) -> None:
    connection = wire()
    connection.subscribe_only(channel)
    assert connection.expect("pusher_internal:subscription_succeeded", channel).data == "{}"


@pytest.mark.parametrize("stem", ["private-a", "private-encrypted-a", "presence-a", "private-cache-a"])
@pytest.mark.parametrize("auth", [{}, {"auth": ""}, {"auth": None}], ids=["absent", "empty", "null"])
def test_s058_s084_s112_without_auth_is_refused(
    wire: OpenWire, name: Name, stem: str, auth: dict[str, str | None]
) -> None:
    channel = name(stem)
    connection = wire()
    connection.subscribe_only(channel, **auth)
    connection.expect_error(mentions=f"Auth info required to subscribe to {channel}")
    connection.expect_nothing()


def test_s059_auth_without_a_colon_is_a_format_error(wire: OpenWire, name: Name) -> None:
    connection = wire()
    connection.subscribe_only(name("private-a"), auth="nocolon")
    connection.expect_error(mentions="should be of format 'key:signature'")


def test_s060_the_key_in_auth_must_be_the_apps(wire: OpenWire, target: Target, name: Name) -> None:
    channel = name("private-a")
    connection = wire()
    signature = channel_auth(target, connection.socket_id, channel).partition(":")[2]
    connection.subscribe_only(channel, auth=f"otherkey:{signature}")
    connection.expect_error(mentions="Invalid key in subscription auth data")


def test_s061_s063_s064_a_signature_for_something_else_is_refused_and_a_valid_one_still_works(
    wire: OpenWire, target: Target, name: Name
) -> None:
    channel = name("private-a")
    connection, other = wire(), wire()
    stranger = target.app(target.app_id, target.key, "another-secret")
    for auth in (
        channel_auth(target, connection.socket_id, name("private-b")),
        channel_auth(target, other.socket_id, channel),
        channel_auth(stranger, connection.socket_id, channel),
        f"{target.key}:",
        f"{target.key}:zz",
    ):
        connection.subscribe_only(channel, auth=auth)
        connection.expect_error(mentions=f"{connection.socket_id}:{channel}")
    connection.expect_nothing()
    connection.subscribe(channel)


def test_s062_an_upper_case_signature_is_accepted(wire: OpenWire, target: Target, name: Name) -> None:
    channel = name("private-a")
    connection = wire()
    key, _, signature = channel_auth(target, connection.socket_id, channel).partition(":")
    connection.subscribe_only(channel, auth=f"{key}:{signature.upper()}")
    connection.expect("pusher_internal:subscription_succeeded", channel)


def test_s065_channel_data_on_a_private_channel_is_part_of_what_is_signed(
    wire: OpenWire, target: Target, name: Name
) -> None:
    channel = name("private-a")
    connection = wire()
    connection.subscribe_only(channel, auth=channel_auth(target, connection.socket_id, channel), channel_data="{}")
    connection.expect_error()
    connection.subscribe(channel, '{"x":1}')


def test_s065_null_channel_data_on_a_private_channel_is_absent(wire: OpenWire, target: Target, name: Name) -> None:
    channel = name("private-a")
    connection = wire()
    connection.subscribe_only(channel, auth=channel_auth(target, connection.socket_id, channel), channel_data=None)
    connection.expect("pusher_internal:subscription_succeeded", channel)


def test_s067_a_js_peer_is_also_told_the_subscription_failed(wire: OpenWire, name: Name) -> None:
    channel = name("private-a")
    connection = wire(query=PUSHER_JS)
    connection.subscribe_only(channel, auth=f"{connection.target.key}:{'0' * 64}")
    connection.expect_error()
    failed = connection.expect("pusher:subscription_error", channel)
    details = failed.decoded()
    assert set(details) == {"type", "error", "status"}
    assert details["type"] == "AuthError" and type(details["status"]) is int and isinstance(details["error"], str)
    connection.expect_nothing()


@pytest.mark.parametrize("query", [JAVA, PYSHER], ids=["Java", "Pysher"])
def test_s068_other_peers_get_the_error_frame_only(wire: OpenWire, name: Name, query: str) -> None:
    connection = wire(query=query)
    connection.subscribe_only(name("private-a"), auth=f"{connection.target.key}:{'0' * 64}")
    connection.expect_error()
    connection.expect_nothing()
