"""A separate world for each test."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.testing.leak_check import nothing_left
from tests.support.broker_fixture import BrokerFixture


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[BrokerFixture]:
    """Give a world that must be empty again after the test."""
    socket = make_socket_directory(tmp_path)
    inside = os.open(socket.parent, os.O_PATH)
    async with nothing_left():
        yield BrokerFixture(tmp_path, Path(f"/proc/self/fd/{inside}") / socket.name)
    os.close(inside)
