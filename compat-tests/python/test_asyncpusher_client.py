"""asyncpusher 0.2.5: an asyncio client of protocol 7 that keeps itself alive with control pings."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpusher

from support.rest import Rest
from support.signing import channel_auth
from support.target import Target
from support.wire import Wire

TIMEOUT_SECONDS = 10

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


class Client:
    """A connected client whose channel events are written down in order."""

    def __init__(self, pusher: asyncpusher.Pusher):
        self.pusher = pusher
        self.seen: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()
        deliver = pusher.connection._callback

        async def on_channel_event(channel: str, event: str, data: Any) -> None:
            await deliver(channel, event, data)
            await self.seen.put((channel, event, data))

        pusher.connection._callback = on_channel_event

    async def next(self) -> tuple[str, str, Any]:
        return await asyncio.wait_for(self.seen.get(), TIMEOUT_SECONDS)

    async def subscribe(self, channel: str) -> Any:
        """Returns what came with the success event."""
        await self.pusher.subscribe(channel)
        seen_channel, event, data = await self.next()
        assert (seen_channel, event) == (channel, "pusher_internal:subscription_succeeded")
        return data


@asynccontextmanager
async def connected(target: Target, member: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Client]:
    async def authorize(request: dict[str, str]) -> dict[str, str]:
        """What a customer's endpoint does."""
        if member is None:
            return {"auth": channel_auth(target, request["socket_id"], request["channel_name"])}
        data = json.dumps(member)
        return {
            "auth": channel_auth(target, request["socket_id"], request["channel_name"], data),
            "channel_data": data,
        }

    pusher = asyncpusher.Pusher(
        options.pop("key", target.key), secure=False, custom_host=target.ws_host, custom_port=target.ws_port,
        channel_authenticator=authorize, **options,
    )
    client = Client(pusher)
    await asyncio.wait_for(pusher.connect(), TIMEOUT_SECONDS)
    try:
        yield client
    finally:
        await pusher.disconnect()


def test_s001_asyncpusher_connects_and_reads_the_activity_timeout(target: Target) -> None:
    async def scenario() -> None:
        async with connected(target) as client:
            assert client.pusher.connection.is_connected()
            assert client.pusher.connection._activity_timeout == 120
            assert client.pusher.connection.socket_id

    asyncio.run(scenario())


def test_s043_a_public_channel_delivers_published_events(target: Target, rest: Rest, name: Name) -> None:
    async def scenario() -> None:
        channel = name("news")
        async with connected(target) as client:
            assert await client.subscribe(channel) == {}
            await asyncio.to_thread(rest.publish, channel, "headline", '{"n":1}')
            assert await client.next() == (channel, "headline", {"n": 1})

    asyncio.run(scenario())


def test_s057_s088_a_private_channel_carries_client_events_both_ways(
    target: Target, wire: OpenWire, name: Name
) -> None:
    channel = name("private-doc")
    other = wire()
    other.subscribe(channel)

    async def scenario() -> None:
        async with connected(target) as client:
            assert await client.subscribe(channel) == {}
            await client.pusher.channels[channel].trigger({"event": "client-typing", "data": {"by": "me"}})
            event = await asyncio.to_thread(other.expect, "client-typing", channel)
            assert event.decoded() == {"by": "me"}
            other.send("client-typing", {"by": "you"}, channel=channel)
            assert await client.next() == (channel, "client-typing", {"by": "you"})

    asyncio.run(scenario())


def test_s069_s071_s073_presence_members_come_and_go(target: Target, name: Name) -> None:
    channel = name("presence-room")

    async def scenario() -> None:
        async with connected(target, {"user_id": "u-1", "user_info": {"name": "Ada"}}) as ada:
            first = await ada.subscribe(channel)
            assert first["presence"] == {"count": 1, "ids": ["u-1"], "hash": {"u-1": {"name": "Ada"}}}
            async with connected(target, {"user_id": "u-2"}) as lin:
                second = await lin.subscribe(channel)
                assert second["presence"]["hash"] == {"u-1": {"name": "Ada"}, "u-2": None}
                joined = await ada.next()
                assert joined[:2] == (channel, "pusher_internal:member_added")
                assert joined[2]["user_id"] == "u-2"
            assert await ada.next() == (channel, "pusher_internal:member_removed", {"user_id": "u-2"})

    asyncio.run(scenario())


def test_s048_an_unsubscribed_channel_is_silent(target: Target, rest: Rest, name: Name) -> None:
    left, kept = name("left"), name("kept")

    async def scenario() -> None:
        async with connected(target) as client:
            await client.subscribe(left)
            await client.subscribe(kept)
            await client.pusher.unsubscribe(left)
            # Commands are processed in order: a further subscription says that the one before is done.
            await client.subscribe(name("fence"))
            await asyncio.to_thread(rest.publish, left, "late")
            await asyncio.to_thread(rest.publish, kept, "marker")
            assert (await client.next())[:2] == (kept, "marker")

    asyncio.run(scenario())


def test_s012_asyncpusher_stops_on_the_close_code_of_an_unknown_key(target: Target) -> None:
    async def scenario() -> None:
        pusher = asyncpusher.Pusher(
            "unknown-key", secure=False, custom_host=target.ws_host, custom_port=target.ws_port
        )
        errors: asyncio.Queue[Any] = asyncio.Queue()
        pusher.connection.bind("pusher:error", errors.put)
        opening = asyncio.ensure_future(pusher.connect())
        assert (await asyncio.wait_for(errors.get(), TIMEOUT_SECONDS))["code"] == 4001
        running = [task for task in asyncio.all_tasks() if "_run_forever" in str(task.get_coro())]
        await asyncio.wait_for(asyncio.gather(*running), TIMEOUT_SECONDS)
        assert pusher.connection._stop
        opening.cancel()

    asyncio.run(scenario())
