"""A server of the suite's own, for what is off by default or ends the server."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .raw_http import send
from .target import Target

START_SECONDS = 20


def binary() -> Path | None:
    """The binary that compat-tests/run tests; none when it tests a server somewhere else."""
    named = os.environ.get("TIDEWIRE_BIN")
    return Path(named).resolve() if named else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnServer:
    """Runs until `stop`; `target` is its first app."""

    def __init__(self, directory: Path, apps: list[dict[str, Any]], **server: Any):
        program = binary()
        assert program is not None
        self.port = free_port()
        config = {
            "server": {"listen": [f"127.0.0.1:{self.port}"], "workers": 2, **server},
            "admin": {"listen": None},
            "apps": apps,
        }
        path = directory / f"config-{self.port}.json"
        path.write_text(json.dumps(config))
        self.log = directory / f"server-{self.port}.log"
        # The suite's own variables are not settings of this server.
        mine = ("TIDEWIRE_", "PUSHER_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen([program, "--config", path], stderr=log, stdout=log, env=environment)
        first = apps[0]
        self.target = Target(
            f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}", first["id"], first["key"], first["secret"],
            server.get("path_prefix", ""),
        )
        self.apps = {app["id"]: app for app in apps}
        self._wait_until_up()

    def app(self, app_id: str) -> Target:
        app = self.apps[app_id]
        return self.target.app(app_id, app["key"], app["secret"])

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, f"the server did not start:\n{self.log.read_text()}"
            try:
                headers = [("Host", self.target.authority), ("Connection", "close")]
                if send(self.target, "GET", "/up", headers).status == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, f"the server is not up:\n{self.log.read_text()}"
            time.sleep(0.02)

    def terminate(self) -> None:
        self.process.terminate()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
