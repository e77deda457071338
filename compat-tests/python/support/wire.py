"""A WebSocket client that shows every frame and sends whatever a test asks for."""

import json
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from . import signing
from .target import Target

TIMEOUT_SECONDS = 10
# A peer the server knows nothing of: it gets no frame that is meant for one library only.
NEUTRAL = "protocol=7&client=compat-tests&version=1.0"
PUSHER_JS = "protocol=7&client=js&version=8.6.0&flash=false"
JAVA = "client=java-client&protocol=5&version=2.4.4"
PYSHER = "client=Pysher&version=1.0.7&protocol=6"


@dataclass(frozen=True)
class Frame:
    """One text frame: its JSON, untouched."""

    raw: dict[str, Any]

    @property
    def event(self) -> str:
        return str(self.raw["event"])

    @property
    def channel(self) -> str | None:
        return self.raw.get("channel")

    @property
    def data(self) -> Any:
        return self.raw.get("data")

    def decoded(self) -> Any:
        """`data` of every server frame but pusher:error is a string that holds JSON."""
        assert isinstance(self.data, str), f"data is not a string: {self.raw}"
        return json.loads(self.data)


class Wire:
    """A connection, established when the constructor returns."""

    def __init__(self, target: Target, query: str = NEUTRAL, path: str | None = None, **options: Any):
        self.target = target
        self.ws: ClientConnection = dial(target, query, path, **options)
        self.established = self.next()
        assert self.established.event == "pusher:connection_established", self.established.raw
        self.socket_id: str = self.established.decoded()["socket_id"]

    # Sending

    def send_text(self, text: str | list[str]) -> None:
        """A list is sent as the fragments of one message."""
        self.ws.send(text)

    def send(self, event: str, data: Any = None, **members: Any) -> None:
        frame: dict[str, Any] = {"event": event}
        if data is not None:
            frame["data"] = data
        self.send_text(json.dumps({**frame, **members}))

    def subscribe_only(self, channel: str, **data: Any) -> None:
        self.send("pusher:subscribe", {"channel": channel, **data})

    def subscribe(self, channel: str, channel_data: str | None = None) -> Frame:
        """Subscribes with a valid token where one is needed and returns the success frame."""
        data: dict[str, Any] = {}
        if channel.startswith(("private-", "presence-")):
            data["auth"] = signing.channel_auth(self.target, self.socket_id, channel, channel_data)
        if channel_data is not None:
            data["channel_data"] = channel_data
        self.subscribe_only(channel, **data)
        return self.expect("pusher_internal:subscription_succeeded", channel)

    def join(self, channel: str, user_id: str, user_info: Any = None) -> Frame:
        member = {"user_id": user_id} if user_info is None else {"user_id": user_id, "user_info": user_info}
        return self.subscribe(channel, json.dumps(member))

    def sign_in(self, user_data: dict[str, Any]) -> Frame:
        text = json.dumps(user_data)
        self.send("pusher:signin", {"auth": signing.user_auth(self.target, self.socket_id, text), "user_data": text})
        return self.expect("pusher:signin_success")

    # Receiving

    def next(self, timeout: float = TIMEOUT_SECONDS) -> Frame:
        message = self.ws.recv(timeout=timeout)
        assert isinstance(message, str), "the server sent a binary frame"
        return Frame(json.loads(message))

    def expect(self, event: str, channel: str | None = None) -> Frame:
        """The next frame must be this one; anything in between is a failure."""
        frame = self.next()
        assert frame.event == event, f"expected {event}, got {frame.raw}"
        if channel is not None:
            assert frame.channel == channel, f"expected {channel}, got {frame.raw}"
        return frame

    def expect_error(self, code: int | None = None, mentions: str = "") -> Frame:
        frame = self.expect("pusher:error")
        assert isinstance(frame.data, dict), f"data of pusher:error must be an object: {frame.raw}"
        assert frame.data["code"] == code, frame.raw
        assert isinstance(frame.data["message"], str) and mentions in frame.data["message"], frame.raw
        return frame

    def fence(self) -> list[Frame]:
        """What the server had sent before it answers a ping: proves silence without waiting."""
        self.send("pusher:ping", {})
        frames = []
        while (frame := self.next()).event != "pusher:pong":
            frames.append(frame)
        return frames

    def until(self, event: str) -> list[Frame]:
        """The frames before the next `event`. A publisher's marker proves that what it published earlier is not
        coming: a channel keeps the publisher's order."""
        frames = []
        while (frame := self.next()).event != event:
            frames.append(frame)
        return frames

    def expect_nothing(self) -> None:
        frames = self.fence()
        assert not frames, f"expected silence, got {[frame.raw for frame in frames]}"

    def expect_close(self) -> tuple[int, list[Frame]]:
        """Reads to the end; the close code and the frames before it."""
        return read_to_close(self.ws)

    def close(self) -> None:
        self.ws.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dial(target: Target, query: str = NEUTRAL, path: str | None = None, **options: Any) -> ClientConnection:
    url = target.ws + (f"{target.prefix}/app/{target.key}" if path is None else path) + (f"?{query}" if query else "")
    if "subprotocols" in options:
        options["subprotocols"] = [Subprotocol(name) for name in options["subprotocols"]]
    settings: dict[str, Any] = {
        "compression": None, "ping_interval": None, "open_timeout": TIMEOUT_SECONDS, "proxy": None,
        # Unread frames must not keep the library from reading the close frame.
        "max_queue": None,
    }
    connection: ClientConnection = connect(url, **{**settings, **options})
    return connection


def read_to_close(ws: ClientConnection) -> tuple[int, list[Frame]]:
    frames: list[Frame] = []
    while True:
        try:
            message = ws.recv(timeout=TIMEOUT_SECONDS)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "the connection ended without a close frame"
            return closed.rcvd.code, frames
        assert isinstance(message, str)
        frames.append(Frame(json.loads(message)))


def refusal(target: Target, query: str = NEUTRAL, path: str | None = None, **options: Any) -> int:
    """Connects where the server must refuse: one frame with an object, the same code in the close frame."""
    with dial(target, query, path, **options) as ws:
        code, frames = read_to_close(ws)
    assert [frame.event for frame in frames] == ["pusher:error"], [frame.raw for frame in frames]
    data = frames[0].data
    assert isinstance(data, dict) and type(data["code"]) is int and isinstance(data["message"], str), frames[0].raw
    assert data["code"] == code, f"frame says {data['code']}, close says {code}"
    return code
