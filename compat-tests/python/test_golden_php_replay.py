"""Replay through pusher-http-php 7.2.6: `trigger` passes unknown parameters on, `get` calls any path."""

import os
from collections.abc import Callable

import pytest

from support.target import Target
from test_golden_php import ApiErrorException, Php

Name = Callable[[str], str]


@pytest.fixture
def stored(target: Target) -> Target:
    given = os.environ.get("TIDEWIRE_APP_STORED", "")
    if not given:
        pytest.skip("no app 'stored' on this server (TIDEWIRE_APP_STORED)")
    return target.app(*given.split(":"))


@pytest.fixture
def php(stored: Target) -> Php:
    return Php(stored)


def test_php_trigger_with_an_idempotency_key_publishes_once(php: Php, name: Name) -> None:
    channel = name("orders")
    for _ in range(3):
        assert vars(php.trigger(channel, "order.paid", {"id": 77}, params={"idempotency_key": "order-77"})) == {}
    page = php.get(f"/channels/{channel}/history")
    assert [(item.serial, item.id, item.event, item.data) for item in page.items] == [
        (1, "order-77", "order.paid", '{"id":77}')
    ]
    with pytest.raises(ApiErrorException, match="another event"):
        php.trigger(channel, "order.paid", {"id": 78}, params={"idempotency_key": "order-77"})


def test_php_trigger_learns_the_position_and_reads_on_from_it(php: Php, name: Name) -> None:
    channel = name("orders")
    reply = php.trigger(channel, "order.paid", {"id": 1}, info="position")
    position = vars(reply.channels)[channel].position
    assert position == php.get(f"/channels/{channel}", {"info": "position"}).position
    php.trigger(channel, "order.paid", {"id": 2})
    # http_build_query escapes the colon that was signed as it is.
    page = php.get(f"/channels/{channel}/history", {"direction": "forward", "from": position})
    assert [item.data for item in page.items] == ['{"id":2}']
    assert page.complete is True


def test_php_pages_through_a_history(php: Php, name: Name) -> None:
    channel = name("orders")
    for number in range(1, 8):
        php.trigger(channel, "tick", number)
    page = php.get(f"/channels/{channel}/history", {"limit": "3"})
    found = [item.data for item in page.items]
    while page.next is not None:
        page = php.get(f"/channels/{channel}/history", {"limit": "3", "cursor": page.next})
        found += [item.data for item in page.items]
    assert found == ["7", "6", "5", "4", "3", "2", "1"]


def test_php_batch_items_tell_their_positions(php: Php, name: Name) -> None:
    channel = name("orders")
    result = php.trigger_batch([
        {"channel": channel, "name": "first", "data": 1, "info": "position"},
        {"channel": channel, "name": "second", "data": 2},
        {"channel": channel, "name": "third", "data": 3, "info": "position"},
    ])
    assert [vars(item).get("position", "").split(":")[-1] for item in result.batch] == ["1", "", "3"]


def test_php_gets_an_exception_for_a_channel_without_history(target: Target, name: Name) -> None:
    with pytest.raises(ApiErrorException, match="replay_disabled"):
        Php(target).get(f"/channels/{name('orders')}/history")
