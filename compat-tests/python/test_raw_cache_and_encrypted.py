"""Section 9.6: cache and encrypted channels, on the wire."""

import json
from collections.abc import Callable

import pytest

from support.rest import Rest
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


def join(connection: Wire, channel: str) -> None:
    if channel.startswith("presence-"):
        connection.join(channel, "u-1")
    else:
        connection.subscribe(channel)


def test_s102_a_channel_never_published_to_is_a_miss(wire: OpenWire, name: Name) -> None:
    channel = name("cache-x")
    connection = wire()
    connection.subscribe(channel)
    miss = connection.expect("pusher:cache_miss")
    assert miss.raw == {"event": "pusher:cache_miss", "channel": channel, "data": "{}"}
    connection.expect_nothing()


@pytest.mark.parametrize("stem", ["cache-x", "private-cache-x", "presence-cache-x", "private-encrypted-cache-x"])
def test_s103_s104_s105_s108_the_newest_event_is_kept_with_nobody_there(
    wire: OpenWire, rest: Rest, name: Name, stem: str
) -> None:
    channel = name(stem)
    rest.publish(channel, "first", '{"v":1}')
    rest.publish(channel, "second", '{"v":2}')
    for _ in range(2):
        connection = wire()
        join(connection, channel)
        cached = connection.expect("second", channel)
        assert cached.raw == {"event": "second", "channel": channel, "data": '{"v":2}'}
        connection.expect_nothing()
        connection.close()


def test_s107_an_excluded_socket_does_not_keep_the_event_out_of_the_cache(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("cache-x")
    first, second = wire(), wire()
    first.subscribe(channel)
    first.expect("pusher:cache_miss", channel)
    rest.publish(channel, "x", "1", socket_id=first.socket_id)
    second.subscribe(channel)
    second.expect("x", channel)
    first.expect_nothing()


@pytest.mark.parametrize("stem", ["cachex", "private-cachex", "cache", "Cache-x", "presence-cachex"])
def test_s109_only_the_whole_prefix_makes_a_cache_channel(
    wire: OpenWire, rest: Rest, name: Name, stem: str
) -> None:
    channel = stem if stem == "cache" else name(stem)
    rest.publish(channel, "x", "1")
    connection = wire()
    join(connection, channel)
    connection.expect_nothing()


def test_s177_the_cache_is_readable(rest: Rest, name: Name) -> None:
    channel = name("cache-x")
    assert rest.get(f"/channels/{channel}", info="cache").json() == {"occupied": False, "cache": None}
    rest.publish(channel, "x", '{"v":1}')
    cache = rest.get(f"/channels/{channel}", info="cache").json()["cache"]
    assert cache["data"] == '{"v":1}' and type(cache["ttl"]) is int and 1790 <= cache["ttl"] <= 1800


def test_s110_s111_ciphertext_passes_byte_identical(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("private-encrypted-x")
    connection = wire()
    assert connection.subscribe(channel).data == "{}"
    sealed = '{ "nonce":"AAAA\\/\\u002b==" ,"ciphertext":"b64+/=="}'
    rest.publish(channel, "x", sealed)
    assert connection.expect("x", channel).data == sealed


def test_s114_no_subscription_count_unless_it_is_enabled(wire: OpenWire, name: Name) -> None:
    channel = name("news")
    first, second = wire(), wire()
    first.subscribe(channel)
    second.subscribe(channel)
    first.expect_nothing()
    second.expect_nothing()


def test_s176_subscription_count_is_refused_unless_it_is_enabled(rest: Rest, name: Name) -> None:
    assert rest.get(f"/channels/{name('news')}", info="subscription_count").status == 400


def test_s131_s134_text_of_any_kind_passes_unchanged(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("news")
    connection = wire()
    connection.subscribe(channel)
    odd = "ü 🐎 \0 \u2028 </script> \\ \" \t"
    for text in ("hello", '{"a":1}', "", odd, json.dumps({"k": odd}), "12"):
        rest.publish(channel, "x", text)
        assert connection.expect("x", channel).data == text
