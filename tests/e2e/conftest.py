"""End to end: the command as a user types it, on every backend, leaving nothing behind."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import engine, production
from tests.support.leftovers import left_behind
from tests.support.project import Project
from tests.support.submitted_project import SUBMITTED, made_project

_SOON = 15
"""Seconds."""


_PLACES = {
    "process": pytest.param("process"),
    "docker": pytest.param("docker", marks=pytest.mark.docker),
    "kubernetes": pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    SUBMITTED: pytest.param(SUBMITTED, marks=[pytest.mark.kubernetes, pytest.mark.helm]),
}
_MARKED = {"kubernetes": "everywhere", SUBMITTED: "in_production"}
"""The mark of the tests that run at a place, where that takes one."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of whole jobs on every backend; on Kubernetes, and left to it, those that are marked for it."""
    own = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not own:
        marked = {mark.name for mark in metafunc.definition.iter_markers()}
        wanted = [param for name, param in _PLACES.items() if _MARKED.get(name) in {None, *marked}]
        metafunc.parametrize("backend", wanted)


@pytest.fixture
def project(tmp_path: Path, backend: str) -> Callable[[str, Mapping[str, Sequence[Any]]], Project]:
    """Make a project of the given Experts and replies on the backend under test."""
    return lambda toml, replies: made_project(tmp_path / "project", backend, toml, replies)


@pytest.fixture
def laptop(tmp_path: Path) -> production.Make:
    """Make a project on the laptop of a user who may submit jobs to a cluster."""
    return lambda toml, replies: production.Submitter.at(tmp_path / "project", toml, replies)


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a container, a process, a socket or a state directory of its own job.

    A cluster is not checked after each test that only looks at its module's job: the check takes longer than the test.
    """
    yield
    has_own = any(tmp_path.iterdir())
    answers, in_cluster = engine.answers(), has_own and request.node.get_closest_marker("kubernetes") is not None
    deadline = time.monotonic() + _SOON
    while left := left_behind(tmp_path, engine_answers=answers, in_cluster=in_cluster):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
