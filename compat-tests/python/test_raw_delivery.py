"""Section 9.8: delivery, on the wire."""

import threading
from collections.abc import Callable

from support.rest import Rest
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def test_s129_events_published_one_after_another_arrive_in_that_order(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("feed")
    subscribers = [wire() for _ in range(5)]
    for subscriber in subscribers:
        subscriber.subscribe(channel)
    for number in range(100):
        rest.publish(channel, "n", str(number))
    for subscriber in subscribers:
        assert [subscriber.expect("n", channel).data for _ in range(100)] == [str(number) for number in range(100)]


def test_s129_order_holds_for_each_publisher_when_there_are_several(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("feed")
    subscriber = wire()
    subscriber.subscribe(channel)

    def publish(who: int) -> None:
        for number in range(40):
            rest.publish(channel, f"p{who}", str(number))

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    frames = [subscriber.next() for _ in range(120)]
    for thread in threads:
        thread.join()
    for who in range(3):
        assert [frame.data for frame in frames if frame.event == f"p{who}"] == [str(number) for number in range(40)]


def test_s130_a_published_event_has_three_members(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("presence-a")
    connection = wire()
    connection.join(channel, "u-1")
    rest.publish(channel, "x", "1")
    assert connection.expect("x").raw == {"event": "x", "channel": channel, "data": "1"}


def test_s132_the_excluded_socket_gets_none_of_the_channels(wire: OpenWire, rest: Rest, name: Name) -> None:
    channels = [name("x"), name("y")]
    excluded, other = wire(), wire()
    for channel in channels:
        excluded.subscribe(channel)
        other.subscribe(channel)
    body = {"name": "e", "channels": channels, "data": "1", "socket_id": excluded.socket_id}
    assert rest.post("/events", body).status == 200
    for channel in channels:
        rest.publish(channel, "marker")
    received = [other.next() for _ in range(4)]
    assert sorted(frame.event for frame in received) == ["e", "e", "marker", "marker"]
    assert [excluded.next().event for _ in channels] == ["marker", "marker"]


def test_s133_an_excluded_socket_that_is_not_connected_excludes_nobody(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("x")
    connection = wire()
    connection.subscribe(channel)
    for socket_id in ("1.1", "123456789012345678901234567890.1", "00.00"):
        rest.publish(channel, "e", "1", socket_id=socket_id)
        connection.expect("e", channel)


def test_s066_success_comes_before_any_event_while_a_publisher_never_pauses(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("private-a")
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            rest.publish(channel, "n", "1")

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(20):
            connection = wire()
            connection.subscribe(channel)
            connection.expect("n", channel)
    finally:
        stop.set()
        publisher.join()
