"""Section 9.4: presence, on the wire."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.rest import Rest
from support.signing import channel_auth
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def test_s069_s070_the_first_member_sees_itself(wire: OpenWire, name: Name) -> None:
    frame = wire().join(name("presence-a"), "u-1", {"name": "Ada"})
    assert frame.decoded() == {"presence": {"count": 1, "ids": ["u-1"], "hash": {"u-1": {"name": "Ada"}}}}


def test_s071_the_others_are_told_and_the_newcomer_is_not(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    first, second = wire(), wire()
    first.join(channel, "u-1")
    second.join(channel, "u-2", {"name": "Lin"})
    second.expect_nothing()
    added = first.expect("pusher_internal:member_added", channel)
    assert added.decoded() == {"user_id": "u-2", "user_info": {"name": "Lin"}}
    first.expect_nothing()


def test_s072_s073_a_user_on_two_connections_is_one_member(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    watcher, one, two = wire(), wire(), wire()
    watcher.join(channel, "u-1")
    one.join(channel, "u-2")
    watcher.expect("pusher_internal:member_added", channel)
    presence = two.join(channel, "u-2").decoded()["presence"]
    assert presence["count"] == 2 and sorted(presence["ids"]) == ["u-1", "u-2"] and len(presence["hash"]) == 2
    one.send("pusher:unsubscribe", {"channel": channel})
    one.expect_nothing()
    watcher.expect_nothing()
    two.close()
    assert watcher.expect("pusher_internal:member_removed", channel).decoded() == {"user_id": "u-2"}
    watcher.expect_nothing()


def test_s074_an_abrupt_loss_counts_as_leaving(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    watcher, lost = wire(), wire()
    watcher.join(channel, "u-1")
    lost.join(channel, "u-2")
    watcher.expect("pusher_internal:member_added", channel)
    lost.ws.socket.shutdown(2)
    assert watcher.expect("pusher_internal:member_removed", channel).decoded() == {"user_id": "u-2"}


def test_s076_a_numeric_user_id_is_a_string_everywhere(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    watcher, number, text = wire(), wire(), wire()
    watcher.join(channel, "u-1")
    presence = number.subscribe(channel, '{"user_id":7}').decoded()["presence"]
    assert sorted(presence["ids"]) == ["7", "u-1"] and presence["hash"]["7"] is None
    assert watcher.expect("pusher_internal:member_added", channel).decoded()["user_id"] == "7"
    text.join(channel, "7")
    watcher.expect_nothing()
    users = rest.get(f"/channels/{channel}/users").json()["users"]
    assert sorted(user["id"] for user in users) == ["7", "u-1"]


def test_s077_a_missing_user_info_is_null_in_the_hash(wire: OpenWire, name: Name) -> None:
    assert wire().join(name("presence-a"), "u-1").decoded()["presence"]["hash"] == {"u-1": None}


@pytest.mark.parametrize(
    "channel_data",
    ["", "not json", "{}", "[]", "5", "null", '{"user_id":""}', '{"user_id":null}', '{"user_id":{}}',
     '{"user_id":true}', '{"user_info":{}}', '{"user_id":["u"]}'],
)
def test_s078_channel_data_without_a_user_is_refused(
    wire: OpenWire, rest: Rest, target: Target, name: Name, channel_data: str
) -> None:
    channel = name("presence-a")
    connection = wire()
    # An empty string counts as absent, so the signature is one without it.
    auth = channel_auth(target, connection.socket_id, channel, channel_data or None)
    connection.subscribe_only(channel, auth=auth, channel_data=channel_data)
    connection.expect_error()
    connection.expect_nothing()
    assert rest.get(f"/channels/{channel}").json() == {"occupied": False}


def test_s079_the_bytes_of_channel_data_are_signed_not_its_meaning(wire: OpenWire, target: Target, name: Name) -> None:
    channel = name("presence-a")
    connection = wire()
    auth = channel_auth(target, connection.socket_id, channel, '{"user_id":"u-1","user_info":{}}')
    connection.subscribe_only(channel, auth=auth, channel_data='{"user_info":{},"user_id":"u-1"}')
    connection.expect_error(mentions="Invalid signature")


def sized(info_bytes: int) -> dict[str, str]:
    """A user_info whose compact JSON has this many bytes."""
    return {"x": "y" * (info_bytes - len('{"x":""}'))}


def test_s080_limits_of_user_id_and_user_info(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u" * 128)
    for channel_data in (
        json.dumps({"user_id": "u" * 129}),
        json.dumps({"user_id": "u-2", "user_info": sized(1025)}, separators=(",", ":")),
    ):
        connection = wire()
        connection.subscribe_only(
            channel, auth=channel_auth(connection.target, connection.socket_id, channel, channel_data),
            channel_data=channel_data,
        )
        connection.expect_error()
    largest = json.dumps({"user_id": "u-3", "user_info": sized(1024)}, separators=(",", ":"))
    assert wire().subscribe(channel, largest).decoded()["presence"]["count"] == 2


def test_s081_s082_the_101st_user_is_refused_and_a_second_connection_of_a_member_is_not(
    wire: OpenWire, name: Name
) -> None:
    channel = name("presence-a")
    members = [wire() for _ in range(100)]
    for number, member in enumerate(members):
        member.join(channel, f"u-{number}")
    late = wire()
    data = '{"user_id":"u-100"}'
    late.subscribe_only(channel, auth=channel_auth(late.target, late.socket_id, channel, data), channel_data=data)
    late.expect_error(mentions="100")
    members[99].expect_nothing()
    assert wire().join(channel, "u-5").decoded()["presence"]["count"] == 100


def test_s083_the_newest_user_info_of_a_user_is_what_later_members_see(wire: OpenWire, name: Name) -> None:
    channel = name("presence-a")
    watcher, old, new, late = wire(), wire(), wire(), wire()
    watcher.join(channel, "u-1")
    old.join(channel, "u-2", {"v": 1})
    watcher.expect("pusher_internal:member_added", channel)
    new.join(channel, "u-2", {"v": 2})
    watcher.expect_nothing()
    assert late.join(channel, "u-3").decoded()["presence"]["hash"]["u-2"] == {"v": 2}


def test_s085_a_signed_in_connection_joins_without_channel_data(wire: OpenWire, target: Target, name: Name) -> None:
    channel, user = name("presence-a"), name("u")
    connection = wire()
    connection.sign_in({"id": user, "user_info": {"name": "Ada"}})
    connection.subscribe_only(channel, auth=channel_auth(target, connection.socket_id, channel))
    frame = connection.expect("pusher_internal:subscription_succeeded", channel)
    assert frame.decoded()["presence"] == {"count": 1, "ids": [user], "hash": {user: {"name": "Ada"}}}


def test_s085_without_sign_in_and_without_channel_data_is_refused(wire: OpenWire, target: Target, name: Name) -> None:
    channel = name("presence-a")
    connection = wire()
    connection.subscribe_only(channel, auth=channel_auth(target, connection.socket_id, channel))
    connection.expect_error()
    connection.expect_nothing()


@pytest.mark.parametrize("info", [True, "text", 5, [1], {}])
def test_s086_user_info_of_any_kind_is_accepted_by_default(wire: OpenWire, name: Name, info: Any) -> None:
    assert wire().join(name("presence-a"), "u-1", info).decoded()["presence"]["hash"] == {"u-1": info}
