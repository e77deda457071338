"""Section 9.10: what the HTTP API answers."""

import http.client
import json
from collections.abc import Callable
from typing import Any

import pytest

from support.raw_http import send
from support.rest import Rest
from support.signing import auth_pairs, joined, md5_hex, sign
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def event(channel: str, **members: Any) -> dict[str, Any]:
    return {"name": "x", "channels": [channel], "data": "1", **members}


def without(body: dict[str, Any], member: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != member}


def test_s151_s152_a_publish_answers_200_and_an_empty_object(rest: Rest, name: Name) -> None:
    for body in (event(name("a")), {"name": "x", "channel": name("a"), "data": "1"}):
        reply = rest.post("/events", body)
        assert (reply.status, reply.body) == (200, b"{}")
        assert reply.headers["content-type"].startswith("application/json")


def test_s153_data_of_10240_bytes_and_one_more(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    assert rest.post("/events", event(channel, data="ü" * 5_120)).status == 200
    assert rest.post("/events", event(channel, data="ü" * 5_120 + "x")).status == 413
    rest.publish(channel, "marker")
    assert [frame.data for frame in connection.until("marker")] == ["ü" * 5_120]


def test_s154_empty_data_is_delivered(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    assert rest.post("/events", event(channel, data="")).status == 200
    assert connection.expect("x", channel).data == ""


@pytest.mark.parametrize("member", ["name", "data", "channels"])
def test_s155_s157_a_missing_member_is_400(rest: Rest, name: Name, member: str) -> None:
    assert rest.post("/events", without(event(name("a")), member)).status == 400


def test_s156_data_that_is_no_string_is_delivered_as_its_json(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    assert rest.post("/events", event(channel, data={"a": [1, None]})).status == 200
    assert connection.expect("x", channel).decoded() == {"a": [1, None]}


def test_s157_a_hundred_channels_and_one_more(rest: Rest, name: Name) -> None:
    channels = [name(f"c{number}") for number in range(101)]
    assert rest.post("/events", event("", channels=channels[:100])).status == 200
    assert rest.post("/events", event("", channels=channels)).status == 400
    assert rest.post("/events", event("", channels=[])).status == 400


def test_s158_a_channel_named_twice_gets_it_once(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    assert rest.post("/events", event("", channels=[channel, channel])).status == 200
    rest.publish(channel, "marker")
    assert len(connection.until("marker")) == 1


@pytest.mark.parametrize("bad", ["a b", "", "ä", "a" * 201, "#x", 5, None])
def test_s159_one_bad_channel_and_nothing_is_delivered(wire: OpenWire, rest: Rest, name: Name, bad: Any) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    assert rest.post("/events", event("", channels=[channel, bad])).status == 400
    rest.publish(channel, "marker")
    assert connection.until("marker") == []


@pytest.mark.parametrize(
    ("socket_id", "status"), [(None, 200), ("1.2", 200), ("abc", 400), ("1.2.3", 400), (5, 400), ("1", 400)]
)
def test_s160_socket_id_is_null_or_well_formed(rest: Rest, name: Name, socket_id: Any, status: int) -> None:
    assert rest.post("/events", event(name("a"), socket_id=socket_id)).status == status


@pytest.mark.parametrize("bad", ["pusher:x", "pusher_internal:x", "", "n" * 201, 5, None])
def test_s161_reserved_or_missing_event_names_are_400(rest: Rest, name: Name, bad: Any) -> None:
    assert rest.post("/events", event(name("a"), name=bad)).status == 400


def test_s162_names_are_not_restricted_otherwise(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    for title in ("App\\Events\\OrderPaid", "a b/c:d ü", "client-x", "n" * 200):
        assert rest.post("/events", event(channel, name=title)).status == 200
        connection.expect(title, channel)


def test_s163_s164_info_of_a_publish(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    wire().join(channel, "u-1")
    reply = rest.post("/events", event(channel, info="user_count"))
    assert reply.json() == {"channels": {channel: {"user_count": 1}}}
    assert rest.post("/events", event(channel, info="nonsense")).status == 400
    assert rest.post("/events", event(channel, info=None)).json() == {}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", None])
def test_s165_the_content_type_does_not_matter(rest: Rest, name: Name, content_type: str | None) -> None:
    headers = [("Content-Type", content_type)] if content_type else []
    body = json.dumps(event(name("a"))).encode()
    assert rest.request("POST", rest.app_path("/events"), body, headers=headers).status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"name":"x"', b"name=x"])
def test_s166_a_body_that_is_no_object_is_400(rest: Rest, body: bytes) -> None:
    assert rest.post("/events", body).status == 400


def batch_item(channel: str, number: int, **members: Any) -> dict[str, Any]:
    return {"channel": channel, "name": "item", "data": str(number), **members}


def test_s167_a_batch_is_delivered_in_order(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    reply = rest.post("/batch_events", {"batch": [batch_item(channel, number) for number in range(10)]})
    assert (reply.status, reply.body) == (200, b"{}")
    assert [connection.expect("item").data for _ in range(10)] == [str(number) for number in range(10)]
    assert rest.post("/batch_events", {"batch": [batch_item(channel, n) for n in range(11)]}).status == 400
    rest.publish(channel, "marker")
    assert connection.until("marker") == []


def test_s168_info_of_one_item_makes_an_array_as_long_as_the_batch(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    batch = [batch_item(name("a"), 1), batch_item(channel, 2, info="user_count"), batch_item(name("b"), 3)]
    assert rest.post("/batch_events", {"batch": batch}).json() == {"batch": [{}, {"user_count": 1}, {}]}


def test_s169_one_invalid_item_and_nothing_is_delivered(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    for bad in (batch_item("a b", 2), {"name": "x", "channel": channel}, batch_item(channel, 2, name="pusher:x")):
        assert rest.post("/batch_events", {"batch": [batch_item(channel, 1), bad]}).status == 400
    too_big = {**batch_item(channel, 2), "data": "y" * 10_241}
    assert rest.post("/batch_events", {"batch": [batch_item(channel, 1), too_big]}).status == 413
    rest.publish(channel, "marker")
    assert connection.until("marker") == []


@pytest.mark.parametrize("body", [{}, {"batch": []}, {"batch": {}}, {"batch": None}, {"batch": [5]}])
def test_s169_a_batch_that_is_no_list_of_events_is_400(rest: Rest, body: dict[str, Any]) -> None:
    assert rest.post("/batch_events", body).status == 400


def test_s170_s171_s174_the_list_of_channels(wire: OpenWire, rest: Rest, name: Name) -> None:
    stem = name("presence-list")
    assert rest.get("/channels", filter_by_prefix=stem).body == b'{"channels":{}}'
    connection = wire()
    connection.join(stem, "u-1")
    assert rest.get("/channels", filter_by_prefix=stem).json() == {"channels": {stem: {}}}
    answer = rest.get("/channels", filter_by_prefix=stem, info="user_count")
    assert answer.json() == {"channels": {stem: {"user_count": 1}}}
    connection.send("pusher:unsubscribe", {"channel": stem})
    connection.expect_nothing()
    assert rest.get("/channels", filter_by_prefix=stem).json() == {"channels": {}}


def test_s172_s173_s176_reads_that_are_refused(rest: Rest, name: Name) -> None:
    assert rest.get("/channels", info="user_count").status == 400
    assert rest.get("/channels", filter_by_prefix="news", info="user_count").status == 400
    reply = rest.get("/channels", filter_by_prefix="presence-", info="nonsense")
    assert reply.status == 400 and "info should be a comma separated list of attributes" in reply.text
    assert rest.get(f"/channels/{name('news')}", info="user_count").status == 400
    assert rest.get(f"/channels/{name('news')}", info="cache").status == 400
    assert rest.get("/channels/a%20b").status in (400, 401)


def test_s175_a_channel_never_seen_is_not_occupied(rest: Rest, name: Name) -> None:
    reply = rest.get(f"/channels/{name('never')}")
    assert (reply.status, reply.body) == (200, b'{"occupied":false}')


def test_s178_s179_s180_users_of_a_channel(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    assert rest.get(f"/channels/{channel}/users").body == b'{"users":[]}'
    for user in ("u-1", "u-2", "u-1"):
        wire().join(channel, user)
    users = rest.get(f"/channels/{channel}/users").json()["users"]
    assert sorted(user["id"] for user in users) == ["u-1", "u-2"] and all(set(user) == {"id"} for user in users)
    assert rest.get(f"/channels/{name('news')}/users").status == 400


def test_s183_terminate_without_an_app_id_needs_a_valid_signature(rest: Rest, name: Name) -> None:
    path = f"/users/{name('u')}/terminate_connections"
    reply = rest.request("POST", path, b"{}")
    assert (reply.status, reply.json()) == (200, {})
    stranger = Rest(rest.target.app(rest.target.app_id, rest.target.key, "another-secret"))
    assert stranger.request("POST", path, b"{}").status == 401


def test_s184_the_legacy_publish_answers_202_with_nothing(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    body = '{"raw": "ü"}'.encode()
    reply = rest.request("POST", rest.app_path(f"/channels/{channel}/events"), body, query=[("name", "e")])
    assert (reply.status, reply.body) == (202, b"")
    assert connection.expect("e", channel).data == '{"raw": "ü"}'
    reply = rest.request("POST", rest.app_path(f"/channels/{channel}/events"), b"\xff", query=[("name", "e")])
    assert reply.status == 400


def test_s184_the_legacy_publish_excludes_a_socket(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    query = [("name", "e"), ("socket_id", connection.socket_id)]
    assert rest.request("POST", rest.app_path(f"/channels/{channel}/events"), b"1", query=query).status == 202
    rest.publish(channel, "marker")
    assert connection.until("marker") == []


def test_s184_the_legacy_stats_of_a_channel(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    wire().join(channel, "u-1")
    reply = rest.get(f"/channels/{channel}/stats")
    assert reply.status == 200 and reply.json()["occupied"] is True and reply.json().get("user_count", 1) == 1


def test_s185_unknown_paths_and_methods(rest: Rest) -> None:
    assert rest.get("/nonsense").status == 404
    assert rest.get("/events").status == 405
    assert rest.request("POST", rest.app_path("/channels"), b"{}").status == 405


def test_s152_keep_alive_serves_many_requests_on_one_connection(rest: Rest, name: Name) -> None:
    """SDK pools depend on it; a refused request must not break the connection either."""
    connection = http.client.HTTPConnection(rest.target.host, rest.target.port, timeout=10)
    for number in range(20):
        body = json.dumps(event(name("a"), **({"name": "pusher:x"} if number % 2 else {}))).encode()
        path = rest.app_path("/events")
        pairs = [*auth_pairs(rest.target), ("body_md5", md5_hex(body))]
        pairs.append(("auth_signature", sign(rest.target.secret, "POST", path, pairs)))
        connection.request("POST", f"{path}?{joined(pairs)}", body, {"Content-Type": "application/json"})
        used = connection.sock
        response = connection.getresponse()
        response.read()
        assert response.status == (400 if number % 2 else 200)
        assert connection.sock is used, "the server closed a connection that was to be kept"
    connection.close()


@pytest.mark.parametrize("path", ["/up", "/"])
def test_health_answers_without_authentication(rest: Rest, path: str) -> None:
    headers = [("Host", rest.target.authority), ("Connection", "close")]
    assert send(rest.target, "GET", path, headers).status == 200
