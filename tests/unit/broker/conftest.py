"""A world of its own for each test."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.broker.gate import make_gate
from tests.support.broker_world import World
from tests.support.tidy import nothing_left


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world that must be empty again after the test."""
    socket = make_gate(tmp_path)
    inside = os.open(socket.parent, os.O_PATH)
    async with nothing_left():
        yield World(tmp_path, Path(f"/proc/self/fd/{inside}") / socket.name)
    os.close(inside)
