"""A world of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.broker_world import World
from tests.support.tidy import nothing_left


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world that must be empty again after the test."""
    async with nothing_left():
        yield World(tmp_path)
