"""End to end: the command as a person types it, on every backend, leaving nothing behind."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import engine
from tests.support.left_behind import left_behind
from tests.support.project import Project

_SOON = 15
"""Seconds."""


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def backend(request: pytest.FixtureRequest) -> str:
    """Each place where Sandboxes run."""
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path, backend: str) -> Callable[[str, Mapping[str, Sequence[Any]]], Project]:
    """Make a project of the given Experts and replies on the backend under test."""
    return lambda toml, replies: Project.make(tmp_path / "project", backend, toml, replies)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a container, a process, a socket or a state directory.

    Others may work on this machine at the same time: what goes away by itself was theirs.
    """
    answers = engine.answers()
    before = left_behind(answers)
    yield
    deadline = time.monotonic() + _SOON
    left = left_behind(answers) - before
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left &= left_behind(answers)
    assert left == set()
