"""Garbage collection of Sandboxes over time; the clock is the test's own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.pool.garbage_collection import remove_orphans
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import SandboxSpec
from orchestrator.store import Store
from orchestrator.wire.job_record import JobRecord
from tests.support.backend_kinds import BackendKind, docker_place, process_place

SECONDS = 60
DEADLINE = 2_000_000_000
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(3600)"
JOB = JobRecord(id="job", coordinator_expert_key="boss", total_steps=1, max_steps=10, started_at=1)


@pytest.fixture(params=[pytest.param(docker_place, marks=pytest.mark.docker, id="docker"), process_place])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give each backend in turn, and check afterwards for Sandboxes left."""
    async with asyncio.timeout(SECONDS), request.param(tmp_path) as found:
        yield found
        assert found.left() == []


def _of(place: BackendKind, ordinal: int, instance: str, deadline: int) -> SandboxSpec:
    spec = place.spec(ordinal)
    labels = naming.labels(JOB.id, sandbox=spec.name, instance=instance, deadline=deadline)
    return replace(spec, deadline=deadline, labels=labels)


async def test_past_its_deadline_a_running_job_s_sandbox_is_removed(place: BackendKind, tmp_path: Path) -> None:
    """A Sandbox is removed after its deadline and not before, and another instance's never."""
    store, root = Store(tmp_path / "perstack"), tmp_path / "states"
    mine, younger = _of(place, 1, place.instance, DEADLINE), _of(place, 2, place.instance, DEADLINE + 10)
    other = _of(place, 3, f"{place.instance}-other", DEADLINE)
    async with (
        store.create(JOB),
        place.connect(SLEEP) as backend,
        backend.launch(mine),
        backend.launch(younger),
        backend.launch(other),
    ):
        removed = [await remove_orphans(backend, store, place.instance, DEADLINE + late, root) for late in (-1, 0, 1)]
        assert removed == [(), (mine.name,), ()]
        for left in (younger, other):
            async with backend.adopt(left.name):
                pass
