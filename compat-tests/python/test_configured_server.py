"""What is off by default or belongs to another app: against a server that this suite starts."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from support.own_server import OwnServer, binary
from support.raw_http import send
from support.rest import Rest
from support.signing import channel_auth
from support.target import Target
from support.wire import JAVA, NEUTRAL, Wire, dial, read_to_close, refusal
from test_golden_php import Php

pytestmark = pytest.mark.skipif(binary() is None, reason="TIDEWIRE_BIN names no server to start")

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def app(number: int, **settings: Any) -> dict[str, Any]:
    return {"id": str(number), "key": f"key-{number}", "secret": f"compat-secret-{number}", **settings}


COUNTS, DISABLED, TLS, QUOTA, ORIGINS, NO_CLIENT_EVENTS = "1", "2", "3", "4", "5", "6"
STRICT, AUTHORIZED, RATE, SHORT_CACHE, IDLE = "7", "8", "9", "10", "11"
IDLE_SECONDS, PONG_SECONDS = 5, 2
# Opcodes of RFC 6455.
TEXT, CLOSE, PING = 1, 8, 9

APPS = [
    app(1, subscription_count=True),
    app(2, enabled=False),
    app(3, require_tls=True),
    app(4, limits={"max_connections": 2}),
    app(5, allowed_origins=["example.com", "*.example.org"]),
    app(6, client_events=False),
    app(7, watchlist=False, strict_user_info=True),
    app(8, authorized_connections=True, limits={"authorization_timeout_seconds": 1}),
    app(9, limits={"triggers_per_second": 5}),
    app(10, limits={"cache_ttl_seconds": 1}),
    app(11, limits={"idle_seconds": IDLE_SECONDS, "pong_timeout_seconds": PONG_SECONDS}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    own = OwnServer(tmp_path_factory.mktemp("server"), APPS, path_prefix="/ws")
    yield own
    own.stop()


def test_s015_a_disabled_app_refuses_connections_with_4003_and_requests_with_403(server: OwnServer) -> None:
    target = server.app(DISABLED)
    assert refusal(target) == 4003
    assert Rest(target).get("/channels").status == 403


def test_s016_an_app_that_demands_tls_refuses_plain_connections_with_4000(server: OwnServer) -> None:
    assert refusal(server.app(TLS)) == 4000


def test_s016_a_trusted_proxy_may_say_that_the_client_used_tls(server: OwnServer) -> None:
    with Wire(server.app(TLS), additional_headers={"X-Forwarded-Proto": "https"}) as connection:
        connection.expect_nothing()


def test_s017_a_full_app_refuses_with_4004_and_accepts_again_when_one_left(server: OwnServer) -> None:
    target = server.app(QUOTA)
    first, second = Wire(target), Wire(target)
    for _ in range(5):
        assert refusal(target) == 4004
    first.expect_nothing()
    second.close()
    deadline = time.monotonic() + 10
    while True:
        with dial(target) as ws:
            event = json.loads(ws.recv(timeout=10))["event"]
            if event == "pusher:connection_established":
                break
        assert time.monotonic() < deadline, "the connection that left still counts"
    first.close()


@pytest.mark.parametrize("origin", ["https://example.com", "https://a.example.org", "http://example.com:8080"])
def test_s018_an_allowed_origin_may_connect(server: OwnServer, origin: str) -> None:
    with Wire(server.app(ORIGINS), origin=origin) as connection:
        connection.expect_nothing()


@pytest.mark.parametrize("origin", ["https://evil.test", "https://example.com.evil.test", "https://notexample.org"])
def test_s018_another_origin_is_refused_with_4009(server: OwnServer, origin: str) -> None:
    assert refusal(server.app(ORIGINS), origin=origin) == 4009


def test_s023_s146_the_prefix_is_served_and_not_signed(server: OwnServer, wire: OpenWire, name: Name) -> None:
    """PHP's `options.path`: the prefix is in the request and not in the string to sign."""
    channel = name("orders")
    subscriber = wire(target=server.app(NO_CLIENT_EVENTS))
    assert subscriber.ws.request is not None and subscriber.ws.request.path.startswith("/ws/app/")
    subscriber.subscribe(channel)
    php = Php(server.app(NO_CLIENT_EVENTS), path="/ws")
    assert vars(php.trigger(channel, "order.paid", {"id": 7})) == {}
    assert subscriber.expect("order.paid", channel).data == '{"id":7}'
    assert php.get_channels({"filter_by_prefix": channel}).keys() == {channel}


def test_s141_a_valid_key_of_another_app_is_401(server: OwnServer) -> None:
    first, second = server.app(COUNTS), server.app(QUOTA)
    assert Rest(first.app(second.app_id, first.key, first.secret)).get("/channels").status == 401


def test_s094_client_events_can_be_off(server: OwnServer, wire: OpenWire, name: Name) -> None:
    target, channel = server.app(NO_CLIENT_EVENTS), name("private-a")
    sender, receiver = wire(target=target), wire(target=target)
    sender.subscribe(channel)
    receiver.subscribe(channel)
    sender.send("client-x", {}, channel=channel)
    sender.expect_error()
    receiver.expect_nothing()


def test_s086_strict_mode_refuses_a_user_info_that_is_no_object(server: OwnServer, wire: OpenWire, name: Name) -> None:
    target, channel = server.app(STRICT), name("presence-a")
    connection = wire(target=target)
    data = '{"user_id":"u-1","user_info":true}'
    auth = channel_auth(target, connection.socket_id, channel, data)
    connection.subscribe_only(channel, auth=auth, channel_data=data)
    connection.expect_error(mentions="user_info")
    connection.join(channel, "u-1", {"ok": True})


def test_s127_the_watch_list_can_be_off(server: OwnServer, wire: OpenWire, name: Name) -> None:
    target = server.app(STRICT)
    watcher, friend = wire(target=target), wire(target=target)
    watcher.sign_in({"id": name("w"), "watchlist": [name("friend")]})
    watcher.expect_nothing()
    friend.sign_in({"id": name("friend")})
    watcher.expect_nothing()


def test_s113_s114_subscription_count_goes_to_all_subscribers_but_not_on_presence(
    server: OwnServer, wire: OpenWire, name: Name
) -> None:
    target, channel, presence = server.app(COUNTS), name("news"), name("presence-a")
    first, second = wire(target=target), wire(target=target)
    first.subscribe(channel)
    first.expect("pusher_internal:subscription_count", channel)
    second.subscribe(channel)
    for connection in (first, second):
        count = connection.expect("pusher_internal:subscription_count", channel)
        assert count.raw.keys() == {"event", "channel", "data"} and count.decoded() == {"subscription_count": 2}
    second.send("pusher:unsubscribe", {"channel": channel})
    assert first.expect("pusher_internal:subscription_count", channel).decoded() == {"subscription_count": 1}
    first.join(presence, "u-1")
    first.expect_nothing()


def test_s163_subscription_count_in_replies_where_it_is_enabled(server: OwnServer, wire: OpenWire, name: Name) -> None:
    rest, channel = Rest(server.app(COUNTS)), name("news")
    wire(target=rest.target).subscribe(channel)
    body = {"name": "x", "data": "", "channels": [channel], "info": "subscription_count"}
    assert rest.post("/events", body).json() == {"channels": {channel: {"subscription_count": 1}}}
    info = rest.get(f"/channels/{channel}", info="subscription_count").json()
    assert info == {"occupied": True, "subscription_count": 1}


@pytest.mark.timeout(120)
def test_s115_a_crowded_channel_counts_at_most_every_five_seconds_and_ends_with_the_final_count(
    server: OwnServer, wire: OpenWire, name: Name
) -> None:
    target, channel = server.app(COUNTS), name("crowd")
    watcher = wire(target=target)
    watcher.subscribe(channel)
    crowd = [wire(target=target) for _ in range(150)]
    for connection in crowd[:100]:
        connection.subscribe_only(channel)
    while not reached(watcher, 101):
        pass
    for connection in crowd[100:]:
        connection.subscribe_only(channel)
    times = [time.monotonic()]
    while not reached(watcher, 151, timeout=15):
        times.append(time.monotonic())
    times.append(time.monotonic())
    # The first may come at once; those after it keep their distance.
    gaps = [later - earlier for earlier, later in zip(times[1:], times[2:])]
    assert all(gap > 4.5 for gap in gaps), f"frames came after {gaps} seconds"


def reached(watcher: Wire, count: int, timeout: float = 10) -> bool:
    frame = watcher.next(timeout)
    assert frame.event == "pusher_internal:subscription_count", frame.raw
    return bool(frame.decoded()["subscription_count"] == count)


def test_s128_an_unauthorised_connection_is_closed_with_4009(server: OwnServer, wire: OpenWire, name: Name) -> None:
    target = server.app(AUTHORIZED)
    idle, signed_in, private = wire(target=target), wire(target=target), wire(target=target)
    signed_in.sign_in({"id": name("u")})
    private.subscribe(name("private-a"))
    idle.subscribe(name("public"))
    code, frames = idle.expect_close()
    assert code == 4009
    assert [(frame.event, frame.data["code"]) for frame in frames] == [("pusher:error", 4009)]
    late = wire(target=target)
    assert late.expect_close()[0] == 4009
    signed_in.expect_nothing()
    private.expect_nothing()


def test_s186_publishing_too_fast_is_429_with_retry_after(server: OwnServer, name: Name) -> None:
    rest = Rest(server.app(RATE))
    body = {"name": "x", "data": "", "channels": [name("a")]}
    statuses = []
    for _ in range(200):
        reply = rest.post("/events", body)
        statuses.append(reply.status)
        if reply.status != 200:
            break
    assert statuses[-1] == 429, f"{len(statuses)} in a row were accepted"
    assert len(statuses) > 5 and int(reply.headers["retry-after"]) >= 1
    assert rest.get("/channels").status == 200, "reads are not publishes"


def test_s106_a_cached_event_expires(server: OwnServer, wire: OpenWire, name: Name) -> None:
    rest, channel = Rest(server.app(SHORT_CACHE)), name("cache-a")
    rest.publish(channel, "x", "1")
    deadline = time.monotonic() + 10
    while rest.get(f"/channels/{channel}", info="cache").json()["cache"] is not None:
        assert time.monotonic() < deadline, "the entry outlives its time"
    connection = wire(target=rest.target)
    connection.subscribe(channel)
    connection.expect("pusher:cache_miss", channel)


class MuteSocket:
    """A WebSocket that answers nothing, not even pings, and reads only when it is told to."""

    def __init__(self, target: Target, channel: str | None = None):
        self.socket = socket.create_connection((target.ws_host, target.ws_port), timeout=30)
        lines = [
            f"GET {target.prefix}/app/{target.key}?{NEUTRAL} HTTP/1.1", f"Host: {target.authority}",
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
        ]
        self.socket.sendall("\r\n".join(lines).encode())
        self.received = self.socket.makefile("rb")
        assert self.received.readline().startswith(b"HTTP/1.1 101")
        while self.received.readline() != b"\r\n":
            pass
        assert self.frame()[0] == TEXT, "connection_established"
        if channel is not None:
            subscribe = json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}).encode()
            # Masked with zeros, which is no change.
            self.socket.sendall(bytes([0x80 | TEXT, 0x80 | len(subscribe), 0, 0, 0, 0]) + subscribe)
            assert self.frame()[0] == TEXT, "subscription_succeeded"

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload; an empty payload of a close at the end of the stream."""
        head = self.received.read(2)
        if len(head) < 2:
            return CLOSE, b""
        length = head[1]
        if length >= 126:
            length = int.from_bytes(self.received.read(2 if length == 126 else 8), "big")
        return head[0] & 15, self.received.read(length)

    def close_code(self) -> int:
        """Reads to the close frame."""
        opcode, payload = self.frame()
        while opcode != CLOSE:
            opcode, payload = self.frame()
        return int.from_bytes(payload[:2], "big")

    def __enter__(self) -> "MuteSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_s032_s034_a_silent_client_is_pinged_with_a_control_frame_and_then_closed_with_4201(server: OwnServer) -> None:
    with MuteSocket(server.app(IDLE)) as connection:
        silent_since = time.monotonic()
        assert connection.frame()[0] == PING, "not a control ping: Java, Swift and .NET do not answer JSON"
        pinged = time.monotonic()
        assert pinged - silent_since >= IDLE_SECONDS - 1
        assert connection.close_code() == 4201
        assert time.monotonic() - pinged >= PONG_SECONDS - 1


def test_s035_what_the_server_sends_is_no_sign_of_life(server: OwnServer, name: Name) -> None:
    """A subscriber that is sent events all the time and never answers is closed like a silent one."""
    rest, channel = Rest(server.app(IDLE)), name("busy")
    over = threading.Event()

    def keep_busy() -> None:
        while not over.wait(0.2):
            rest.publish(channel, "tick")

    publisher = threading.Thread(target=keep_busy)
    publisher.start()
    try:
        with MuteSocket(rest.target, channel) as connection:
            began = time.monotonic()
            assert connection.close_code() == 4201
            assert time.monotonic() - began < IDLE_SECONDS + PONG_SECONDS + 5
    finally:
        over.set()
        publisher.join()


def test_s033_a_client_that_answers_only_at_control_level_stays(server: OwnServer) -> None:
    """The library answers pings by itself; nobody sends JSON. Two probes must pass."""
    with Wire(server.app(IDLE)) as connection:
        with pytest.raises(TimeoutError):
            connection.ws.recv(timeout=2 * (IDLE_SECONDS + PONG_SECONDS))
        connection.expect_nothing()


def test_s027_an_overloaded_node_refuses_with_4100(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = OwnServer(tmp_path_factory.mktemp("server"), [app(1)], max_connections=2)
    try:
        first, second = Wire(own.target), Wire(own.target)
        assert refusal(own.target) == 4100
        first.expect_nothing()
        second.close()
        first.close()
    finally:
        own.stop()


def test_s135_a_subscriber_that_does_not_read_is_closed_with_4100_and_others_receive_everything(
    tmp_path_factory: pytest.TempPathFactory, name: Name
) -> None:
    own = OwnServer(tmp_path_factory.mktemp("server"), [app(1)], outbox_bytes=65_536)
    channel, events = name("firehose"), 2_000
    try:
        with MuteSocket(own.target, channel) as stuck, Wire(own.target) as reader:
            reader.subscribe(channel)
            rest = Rest(own.target)
            for number in range(events):
                # The reader keeps up, so that it never has more than one event waiting.
                rest.publish(channel, "n", f"{number} ".ljust(10_000, "x"))
                assert reader.expect("n").data.split()[0] == str(number)
            assert stuck.close_code() == 4100
    finally:
        own.stop()


def closed_with(ws: ClientConnection) -> tuple[int, list[str]]:
    code, frames = read_to_close(ws)
    return code, [frame.event for frame in frames]


def test_s026_a_draining_server_closes_with_4200_and_refuses_with_4200(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    own = OwnServer(tmp_path_factory.mktemp("server"), [app(1)], drain_seconds=3)
    try:
        connections = [Wire(own.target) for _ in range(100)]
        java = Wire(own.target, JAVA)
        own.terminate()
        code = 0
        while code != 4200:
            # Accepted until the signal is noticed, refused from then on.
            with dial(own.target) as ws:
                first = json.loads(ws.recv(timeout=10))
                if first["event"] == "pusher:error":
                    assert first["data"]["code"] == 4200
                    code, _ = closed_with(ws)
        for connection in connections:
            assert closed_with(connection.ws) == (4200, [])
        assert closed_with(java.ws) == (4200, ["pusher:error"]), "protocols below 6 get the frame too"
        assert own.process.wait(15) == 0
    finally:
        own.stop()


def test_health_stays_at_the_root_below_a_prefix(server: OwnServer) -> None:
    headers = [("Host", server.target.authority), ("Connection", "close")]
    assert send(server.target, "GET", "/up", headers).status == 200
