"""Section 9.7: sign-in, the user channel, watch-lists, on the wire."""

import json
from collections.abc import Callable

import pytest

from support.rest import Rest
from support.signing import user_auth
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def events_of(frame_data: dict[str, list[dict[str, object]]]) -> dict[str, list[str]]:
    return {str(item["name"]): sorted(item["user_ids"]) for item in frame_data["events"]}  # type: ignore[call-overload]


def test_s116_user_data_comes_back_byte_for_byte(wire: OpenWire, target: Target, name: Name) -> None:
    user_data = f'{{ "id": "{name("u")}",  "user_info": {{"n": "\\u00fc / ü"}}, "more":[1.0] }}'
    connection = wire()
    connection.send(
        "pusher:signin", {"auth": user_auth(target, connection.socket_id, user_data), "user_data": user_data}
    )
    frame = connection.expect("pusher:signin_success")
    assert "channel" not in frame.raw
    assert frame.decoded() == {"user_data": user_data}
    connection.expect_nothing()


def test_s117_a_wrong_signature_signs_nobody_in(wire: OpenWire, target: Target, name: Name) -> None:
    user = name("u")
    connection = wire()
    connection.send("pusher:signin", {"auth": f"{target.key}:{'0' * 64}", "user_data": json.dumps({"id": user})})
    connection.expect_error()
    connection.subscribe_only(f"#server-to-user-{user}", auth="")
    connection.expect_error()
    connection.expect_nothing()


@pytest.mark.parametrize("user_data", ["not json", "{}", '{"id":""}', '{"id":7}', '{"id":null}', "[]", '"u"'])
def test_s118_user_data_without_a_string_id_is_refused(wire: OpenWire, target: Target, user_data: str) -> None:
    connection = wire()
    connection.send(
        "pusher:signin", {"auth": user_auth(target, connection.socket_id, user_data), "user_data": user_data}
    )
    connection.expect_error()
    connection.expect_nothing()


def test_s119_missing_parameters_are_named(wire: OpenWire) -> None:
    connection = wire()
    connection.send("pusher:signin", {"auth": "x:y"})
    connection.expect_error(mentions="Missing parameter")
    connection.send("pusher:signin", {"user_data": '{"id":"u"}'})
    connection.expect_error(mentions="Missing parameter")
    connection.send("pusher:signin")
    connection.expect_error()


def test_s120_s122_the_user_channel_opens_for_its_user(wire: OpenWire, rest: Rest, name: Name) -> None:
    user = name("u")
    channel = f"#server-to-user-{user}"
    connections = [wire(), wire()]
    for connection in connections:
        connection.sign_in({"id": user})
        connection.subscribe_only(channel, auth="")
        assert connection.expect("pusher_internal:subscription_succeeded", channel).data == "{}"
    rest.publish(channel, "x", "1")
    for connection in connections:
        assert connection.expect("x").raw == {"event": "x", "channel": channel, "data": "1"}
    assert channel not in rest.get("/channels").json()["channels"]


def test_s121_the_user_channel_of_another_stays_shut(wire: OpenWire, name: Name) -> None:
    connection = wire()
    connection.sign_in({"id": name("u")})
    connection.subscribe_only(f"#server-to-user-{name('other')}", auth="")
    connection.expect_error()
    connection.expect_nothing()


def test_s123_the_same_user_may_sign_in_again_and_another_may_not(
    wire: OpenWire, target: Target, name: Name
) -> None:
    user = name("u")
    connection = wire()
    connection.sign_in({"id": user})
    connection.sign_in({"id": user, "user_info": {"n": 2}})
    other = json.dumps({"id": name("other")})
    connection.send("pusher:signin", {"auth": user_auth(target, connection.socket_id, other), "user_data": other})
    connection.expect_error()
    connection.subscribe_only(f"#server-to-user-{user}", auth="")
    connection.expect("pusher_internal:subscription_succeeded")


def test_s124_s125_a_watch_list_tells_the_state_and_then_its_changes(wire: OpenWire, name: Name) -> None:
    here, away = name("here"), name("away")
    wire().sign_in({"id": here})
    watcher = wire()
    watcher.sign_in({"id": name("w"), "watchlist": [here, away]})
    state = watcher.expect("pusher_internal:watchlist_events")
    assert "channel" not in state.raw
    assert events_of(state.decoded()) == {"online": [here], "offline": [away]}
    first, second = wire(), wire()
    first.sign_in({"id": away})
    assert events_of(watcher.expect("pusher_internal:watchlist_events").decoded()) == {"online": [away]}
    second.sign_in({"id": away})
    watcher.expect_nothing()
    first.close()
    second.close()
    assert events_of(watcher.expect("pusher_internal:watchlist_events").decoded()) == {"offline": [away]}
    watcher.expect_nothing()


def test_s126_a_watch_list_of_101_is_cut_and_reported_with_4302(wire: OpenWire, name: Name) -> None:
    ids = [name(f"w{number}") for number in range(101)]
    watcher, last = wire(), wire()
    watcher.sign_in({"id": name("u"), "watchlist": ids})
    frames = {frame.event: frame for frame in (watcher.next(), watcher.next())}
    assert frames["pusher:error"].data["code"] == 4302
    state = frames["pusher_internal:watchlist_events"].decoded()
    assert events_of(state) == {"offline": sorted(ids[:100])}
    last.sign_in({"id": ids[100]})
    watcher.expect_nothing()


def test_s181_s182_terminate_closes_signed_in_connections_with_4009(wire: OpenWire, rest: Rest, name: Name) -> None:
    user = name("u")
    signed_in, member = wire(), wire()
    signed_in.sign_in({"id": user})
    member.join(name("presence-a"), user)
    reply = rest.post(f"/users/{user}/terminate_connections", b"")
    assert (reply.status, reply.json()) == (200, {})
    code, frames = signed_in.expect_close()
    assert code == 4009 and [frame.data["code"] for frame in frames] == [4009]
    member.expect_nothing()
    assert rest.post(f"/users/{user}/terminate_connections", {}).json() == {}
