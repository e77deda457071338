"""The server under test and the app the suites speak for."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Target:
    """One app on one server."""

    http: str
    ws: str
    app_id: str
    key: str
    secret: str
    # What the deployment puts in front of /app and /apps; never signed.
    prefix: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.http).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.http).port or 80

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def ws_host(self) -> str:
        return urlsplit(self.ws).hostname or "127.0.0.1"

    @property
    def ws_port(self) -> int:
        return urlsplit(self.ws).port or 80

    def app(self, app_id: str, key: str, secret: str) -> "Target":
        return Target(self.http, self.ws, app_id, key, secret, self.prefix)


def from_environment() -> Target:
    """The server that compat-tests/run started, or one on the default port."""
    return Target(
        http=os.environ.get("TIDEWIRE_HTTP", "http://127.0.0.1:6001").rstrip("/"),
        ws=os.environ.get("TIDEWIRE_WS", "ws://127.0.0.1:6001").rstrip("/"),
        app_id=os.environ.get("TIDEWIRE_APP_ID", "42"),
        key=os.environ.get("TIDEWIRE_APP_KEY", "tw-demo-key"),
        secret=os.environ.get("TIDEWIRE_APP_SECRET", "tw-demo-secret"),
    )
