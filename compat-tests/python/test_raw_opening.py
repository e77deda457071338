"""Section 9.1: opening a connection, on the wire."""

import re
from collections.abc import Callable

import pytest
from websockets.datastructures import Headers
from websockets.sync.client import ClientConnection

from support.raw_http import send
from support.target import Target
from support.wire import JAVA, PUSHER_JS, PYSHER, Wire, dial, refusal

OpenWire = Callable[..., Wire]


def test_s001_s002_s003_s004_the_first_frame_establishes_the_connection(wire: OpenWire) -> None:
    established = wire(query=PUSHER_JS).established
    assert set(established.raw) == {"event", "data"}
    assert isinstance(established.data, str)
    data = established.decoded()
    assert set(data) == {"socket_id", "activity_timeout"}
    assert re.fullmatch(r"\d+\.\d+", data["socket_id"])
    assert type(data["activity_timeout"]) is int and data["activity_timeout"] == 120


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="S005 nothing"),
        pytest.param(JAVA, id="S006 Java and .NET with protocol 5"),
        pytest.param(PYSHER, id="S007 Pysher with protocol 6"),
        pytest.param("client=pusher-websocket-swift&version=10.1.10&protocol=7", id="S001 Swift"),
        pytest.param("protocol=4", id="S009 the oldest"),
        pytest.param("protocol=7&version=garbage", id="S010 version=garbage"),
        pytest.param(PUSHER_JS + "&foo=1&bar", id="S011 unknown parameters"),
    ],
)
def test_s005_s006_s007_s010_s011_accepted_queries(wire: OpenWire, query: str) -> None:
    wire(query=query).expect_nothing()


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param("3", id="S008 3"),
        pytest.param("8", id="S009 8"),
        pytest.param("abc", id="S009 abc"),
        pytest.param("7.5", id="S009 7.5"),
        pytest.param("-7", id="S009 -7"),
        pytest.param("99999999999999999999", id="S009 huge"),
    ],
)
def test_s008_s009_s019_unsupported_protocols_are_refused_with_4007(target: Target, protocol: str) -> None:
    assert refusal(target, f"protocol={protocol}&client=js&version=8.6.0") == 4007


def test_s012_s019_an_unknown_key_is_refused_with_4001(target: Target) -> None:
    assert refusal(target, path="/app/unknown-key") == 4001


def test_s013_an_empty_key_is_refused_with_4001(target: Target) -> None:
    assert refusal(target, path="/app/") == 4001


@pytest.mark.parametrize("path", ["/nope", "/", "/apps", "/app"])
def test_s014_another_path_is_refused_with_4005(target: Target, path: str) -> None:
    assert refusal(target, path=path) in ((4005,) if path != "/app" else (4001, 4005))


def test_s012_a_protocol_5_peer_gets_the_frame_and_the_close_too(target: Target) -> None:
    assert refusal(target, JAVA, path="/app/unknown-key") == 4001


def answered(ws: ClientConnection) -> Headers:
    assert ws.response is not None
    return ws.response.headers


def test_s020_the_offered_sub_protocol_is_selected(wire: OpenWire) -> None:
    connection = wire(subprotocols=["pusher-channels-protocol-7"])
    assert answered(connection.ws)["Sec-WebSocket-Protocol"] == "pusher-channels-protocol-7"


def test_s021_no_sub_protocol_offered_none_selected(wire: OpenWire) -> None:
    assert "Sec-WebSocket-Protocol" not in answered(wire().ws)


def test_s021_another_sub_protocol_is_not_selected(target: Target) -> None:
    with dial(target, subprotocols=["chat"]) as ws:
        assert "Sec-WebSocket-Protocol" not in answered(ws)


def test_s021_offered_compression_is_declined(target: Target) -> None:
    with dial(target, compression="deflate") as ws:
        assert "Sec-WebSocket-Extensions" not in answered(ws)


def test_s022_repeated_slashes_are_one(wire: OpenWire, target: Target) -> None:
    wire(path=f"//app/{target.key}")
    wire(path=f"///app//{target.key}")


def test_s024_a_plain_get_is_told_to_upgrade(target: Target) -> None:
    headers = [("Host", target.authority), ("Connection", "close")]
    assert send(target, "GET", f"/app/{target.key}?protocol=7", headers).status in (400, 426)


def test_s025_socket_ids_are_distinct(target: Target) -> None:
    seen = set()
    for _ in range(300):
        with Wire(target) as connection:
            seen.add(connection.socket_id)
    assert len(seen) == 300
