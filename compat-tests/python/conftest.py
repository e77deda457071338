"""Fixtures of all suites."""

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from support.rest import Rest
from support.target import Target, from_environment
from support.wire import Wire

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def target() -> Target:
    return from_environment()


@pytest.fixture(scope="session")
def rest(target: Target) -> Rest:
    return Rest(target)


@pytest.fixture
def name() -> Callable[[str], str]:
    """Names nobody else uses, so that suites share a server: `name("private-a")`."""
    suffix = f"{os.getpid()}-{next(_numbers)}"
    return lambda stem: f"{stem}-{suffix}"


@pytest.fixture
def wire(target: Target) -> Iterator[Callable[..., Wire]]:
    """Opens connections that are closed when the test is over."""
    opened: list[Wire] = []

    def open_wire(**options: object) -> Wire:
        opened.append(Wire(options.pop("target", target), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_wire
    for connection in opened:
        connection.close()
