"""The official Python server SDK, `pusher` 3.3.4, with only host, port and TLS changed."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator

import nacl.secret
import pusher
import pusher.aiohttp
import pusher.errors
import pytest

from support.target import Target
from support.wire import Wire

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]


@pytest.fixture
def sdk(target: Target) -> pusher.Pusher:
    return client_of(target)


def client_of(target: Target, **options: object) -> pusher.Pusher:
    return pusher.Pusher(
        target.app_id, target.key, target.secret, ssl=False, host=target.host, port=target.port,
        encryption_master_key_base64=MASTER_KEY, **options,
    )


@pytest.fixture
def lobby(wire: OpenWire, name: Name) -> Iterator[str]:
    """A presence channel with two users, one of them on two connections."""
    channel = name("presence-lobby")
    first, second, third = wire(), wire(), wire()
    first.join(channel, "u-1", {"name": "Ada"})
    second.join(channel, "u-1")
    third.join(channel, "u-2")
    yield channel


def test_s227_trigger_on_one_channel_is_delivered(sdk: pusher.Pusher, wire: OpenWire, name: Name) -> None:
    channel = name("orders")
    subscriber = wire()
    subscriber.subscribe(channel)
    assert sdk.trigger(channel, "order.paid", {"id": 7, "note": "Žluťoučký 🐎"}) == {}
    event = subscriber.expect("order.paid", channel)
    assert event.decoded() == {"id": 7, "note": "Žluťoučký 🐎"}


def test_s151_trigger_on_several_channels_reaches_each(sdk: pusher.Pusher, wire: OpenWire, name: Name) -> None:
    channels = [name("a"), name("b")]
    subscriber = wire()
    for channel in channels:
        subscriber.subscribe(channel)
    assert sdk.trigger(channels, "tick", "plain text") == {}
    received = [subscriber.expect("tick"), subscriber.expect("tick")]
    assert sorted(frame.channel or "" for frame in received) == sorted(channels)
    assert [frame.data for frame in received] == ["plain text", "plain text"]


def test_s132_trigger_with_socket_id_skips_that_connection(sdk: pusher.Pusher, wire: OpenWire, name: Name) -> None:
    channel = name("chat")
    author, reader = wire(), wire()
    author.subscribe(channel)
    reader.subscribe(channel)
    sdk.trigger(channel, "said", "hi", author.socket_id)
    sdk.trigger(channel, "marker", "")
    reader.expect("said", channel)
    assert author.until("marker") == []


def test_s227_trigger_batch_delivers_in_order(sdk: pusher.Pusher, wire: OpenWire, name: Name) -> None:
    channel = name("feed")
    subscriber = wire()
    subscriber.subscribe(channel)
    batch = [{"channel": channel, "name": "item", "data": {"n": n}} for n in range(10)]
    assert sdk.trigger_batch(batch) == {}
    assert [subscriber.expect("item", channel).decoded()["n"] for _ in range(10)] == list(range(10))


def test_s167_a_batch_of_eleven_is_refused_and_nothing_is_delivered(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    channel = name("feed")
    subscriber = wire()
    subscriber.subscribe(channel)
    with pytest.raises(pusher.errors.PusherBadRequest):
        sdk.trigger_batch([{"channel": channel, "name": "item", "data": ""} for _ in range(11)])
    sdk.trigger(channel, "marker", "")
    assert subscriber.until("marker") == []


def test_s143_s171_channels_info_filters_and_counts_users(sdk: pusher.Pusher, lobby: str) -> None:
    answer = sdk.channels_info("presence-", ["user_count"])
    assert answer["channels"][lobby] == {"user_count": 2}
    assert all(name.startswith("presence-") for name in answer["channels"])


def test_s143_s170_channels_info_without_a_match_is_an_empty_object(sdk: pusher.Pusher, name: Name) -> None:
    assert sdk.channels_info(name("nobody-is-here")) == {"channels": {}}


def test_s172_channels_info_user_count_without_presence_prefix_is_a_bad_request(sdk: pusher.Pusher) -> None:
    with pytest.raises(pusher.errors.PusherBadRequest):
        sdk.channels_info(attributes=["user_count"])


def test_s173_channels_info_unknown_attribute_is_named(sdk: pusher.Pusher) -> None:
    with pytest.raises(pusher.errors.PusherBadRequest, match="info should be a comma separated list of attributes"):
        sdk.channels_info("presence-", ["nonsense"])


def test_s143_channel_info_of_an_occupied_channel(sdk: pusher.Pusher, lobby: str) -> None:
    assert sdk.channel_info(lobby, ["user_count"]) == {"occupied": True, "user_count": 2}


def test_s175_channel_info_of_a_channel_never_seen(sdk: pusher.Pusher, name: Name) -> None:
    assert sdk.channel_info(name("never")) == {"occupied": False}


def test_s148_channel_info_with_every_special_character_of_a_name(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    channel = name("A-z_0=9@x,y.z;q")
    wire().subscribe(channel)
    assert sdk.channel_info(channel) == {"occupied": True}


def test_s178_users_info_lists_distinct_users_with_string_ids(sdk: pusher.Pusher, lobby: str) -> None:
    users = sdk.users_info(lobby)["users"]
    assert sorted(user["id"] for user in users) == ["u-1", "u-2"]


def test_s179_users_info_of_an_empty_presence_channel(sdk: pusher.Pusher, name: Name) -> None:
    assert sdk.users_info(name("presence-empty")) == {"users": []}


def test_s180_users_info_of_another_kind_of_channel_is_a_bad_request(sdk: pusher.Pusher, name: Name) -> None:
    with pytest.raises(pusher.errors.PusherBadRequest):
        sdk.users_info(name("news"))


def test_s181_s183_terminate_user_connections_works_though_its_path_has_no_app_id(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    user = name("u")
    kicked, kicked_too, present = wire(), wire(), wire()
    kicked.sign_in({"id": user})
    kicked_too.sign_in({"id": user})
    present.join(name("presence-room"), user)
    assert sdk.terminate_user_connections(user) == {}
    for connection in (kicked, kicked_too):
        code, frames = connection.expect_close()
        assert code == 4009
        assert [frame.event for frame in frames] == ["pusher:error"]
        assert frames[0].data["code"] == 4009
    present.expect_nothing()


def test_s182_s183_terminate_user_connections_of_nobody(sdk: pusher.Pusher, name: Name) -> None:
    assert sdk.terminate_user_connections(name("nobody")) == {}


def test_s122_send_to_user_reaches_every_connection_of_that_user(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    user = name("u")
    channel = f"#server-to-user-{user}"
    connections = [wire(), wire()]
    for connection in connections:
        connection.sign_in({"id": user})
        connection.subscribe_only(channel, auth="")
        connection.expect("pusher_internal:subscription_succeeded", channel)
    assert sdk.send_to_user(user, "notice", {"text": "hello"}) == {}
    for connection in connections:
        assert connection.expect("notice", channel).decoded() == {"text": "hello"}


def test_s057_a_token_of_authenticate_opens_a_private_channel(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    channel = name("private-a")
    connection = wire()
    token = sdk.authenticate(channel, connection.socket_id)
    connection.subscribe_only(channel, **token)
    assert connection.expect("pusher_internal:subscription_succeeded", channel).data == "{}"


def test_s069_a_token_of_authenticate_with_custom_data_joins_a_presence_channel(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    channel = name("presence-a")
    connection = wire()
    token = sdk.authenticate(channel, connection.socket_id, {"user_id": "u-1", "user_info": {"name": "Ada"}})
    connection.subscribe_only(channel, **token)
    presence = connection.expect("pusher_internal:subscription_succeeded", channel).decoded()["presence"]
    assert presence == {"count": 1, "ids": ["u-1"], "hash": {"u-1": {"name": "Ada"}}}


def test_s116_a_token_of_authenticate_user_signs_in(sdk: pusher.Pusher, wire: OpenWire, name: Name) -> None:
    connection = wire()
    token = sdk.authenticate_user(connection.socket_id, {"id": name("u"), "user_info": {"name": "Ada"}})
    connection.send("pusher:signin", token)
    assert connection.expect("pusher:signin_success").decoded()["user_data"] == token["user_data"]


def test_s110_s111_an_encrypted_event_arrives_byte_identical_and_decrypts(
    sdk: pusher.Pusher, wire: OpenWire, name: Name
) -> None:
    channel = name("private-encrypted-a")
    connection = wire()
    token = sdk.authenticate(channel, connection.socket_id)
    # The shared secret stays between the customer's endpoint and the client.
    connection.subscribe_only(channel, auth=token["auth"])
    assert connection.expect("pusher_internal:subscription_succeeded", channel).data == "{}"
    assert sdk.trigger(channel, "secret", {"pin": 1234}) == {}
    sealed = connection.expect("secret", channel).decoded()
    box = nacl.secret.SecretBox(base64.b64decode(token["shared_secret"]))
    opened = box.decrypt(base64.b64decode(sealed["ciphertext"]), base64.b64decode(sealed["nonce"]))
    assert json.loads(opened) == {"pin": 1234}


def test_s149_a_wrong_secret_is_an_authentication_error_that_shows_the_string_to_sign(
    target: Target, name: Name
) -> None:
    stranger = client_of(target.app(target.app_id, target.key, "another-secret"))
    with pytest.raises(pusher.errors.PusherBadAuth, match=rf"POST\\n/apps/{target.app_id}/events\\nauth_key="):
        stranger.trigger(name("a"), "x", "")


def test_s140_an_unknown_key_is_an_authentication_error(target: Target, name: Name) -> None:
    stranger = client_of(target.app(target.app_id, "unknown-key", target.secret))
    with pytest.raises(pusher.errors.PusherBadAuth, match="Unknown auth_key"):
        stranger.trigger(name("a"), "x", "")


def test_s153_data_over_the_limit_is_refused(sdk: pusher.Pusher, name: Name) -> None:
    sdk.trigger(name("a"), "x", "y" * 10_240)
    with pytest.raises(pusher.errors.PusherBadStatus, match="413"):
        sdk.trigger(name("a"), "x", "y" * 10_241)


def test_s227_the_asyncio_backend_encodes_its_query_differently_and_works(
    target: Target, wire: OpenWire, name: Name
) -> None:
    """aiohttp builds the query itself: what was signed raw is percent-encoded on the wire."""
    channel = name("presence-A=9@x,y.z;q")
    wire().join(channel, "u-1")

    async def calls() -> list[dict[str, object]]:
        sdk = client_of(target, backend=pusher.aiohttp.AsyncIOBackend, timeout=10)
        return [
            await sdk.trigger(channel, "x", {"a": 1}),
            await sdk.channels_info("presence-A=9@x,y.z;q", ["user_count"]),
            await sdk.channel_info(channel, ["user_count"]),
            await sdk.users_info(channel),
            await sdk.terminate_user_connections("nobody@x,y"),
        ]

    assert asyncio.run(calls()) == [
        {},
        {"channels": {channel: {"user_count": 1}}},
        {"occupied": True, "user_count": 1},
        {"users": [{"id": "u-1"}]},
        {},
    ]
