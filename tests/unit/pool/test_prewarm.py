"""How many Sandboxes are warm: by need, within what the machine can afford."""

import os

import pytest

from orchestrator.pool.prewarm import WarmLimit, affordable, at_start, capacity_of, size, while_generating
from orchestrator.sandbox.api import Capacity, SizedBackend
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.harness import NOTHING
from orchestrator.wire.expert import Expert

ALONE = Expert(key="alone", name="alone", instruction="i")
LEADER = Expert(key="boss", name="boss", instruction="i", delegates=("left", "right"))
GIB = 1024**3


@pytest.mark.parametrize(
    ("expert", "cores", "requested", "expected"),
    [(ALONE, 8, None, 0), (LEADER, 1, None, 1), (LEADER, 8, None, 2), (LEADER, 8, 0, 0), (ALONE, 1, 5, 5)],
)
def test_at_the_start(expert: Expert, cores: int, requested: int | None, expected: int) -> None:
    """With the coordinator's own it is one more than the cores, at most three, or the requested number."""
    assert at_start(expert, cores, requested) == expected


@pytest.mark.parametrize(
    ("expert", "fan_out", "requested", "expected"),
    [(ALONE, 8, None, 0), (LEADER, 1, None, 3), (LEADER, 5, None, 6), (LEADER, 32, None, 9), (LEADER, 5, 0, 0),
     (LEADER, 1, 7, 7)],
)  # fmt: skip
def test_during_a_model_call(expert: Expert, fan_out: int, requested: int | None, expected: int) -> None:
    """One for each delegate, or as many as an earlier reply called, plus one to continue in; within limits."""
    assert while_generating(expert, fan_out, requested) == expected


@pytest.mark.parametrize(
    ("cores", "available", "expected"),
    [(2, 24 * GIB, 8), (64, 24 * GIB, 54), (64, 1 * GIB, 2), (1, 0, 1)],
)
def test_what_a_machine_affords(cores: int, available: int, expected: int) -> None:
    """Four for each core, in a tenth of the available memory, and at least one."""
    assert size(cores, available) == expected


def test_a_warm_limit_is_shared_and_given_back() -> None:
    """A warm Sandbox of one job counts for all jobs until it is used or gone."""
    limit = WarmLimit(2)
    assert [limit.take() for _ in range(3)] == [True, True, False]
    limit.give_back()
    assert [limit.take() for _ in range(2)] == [True, False]


class ElsewhereBackend(FakeBackend):
    """A backend whose Sandboxes run on another machine."""

    async def capacity(self) -> Capacity | None:
        """Report a machine with 4 GB."""
        return Capacity(3, 4_000_000_000)


async def test_this_machine_affords_some() -> None:
    """However little memory is left, one Sandbox can be warm."""
    async with FakeBackend(NOTHING.script) as backend:
        capacity = await capacity_of(backend)
    assert capacity.cores == os.cpu_count()
    assert affordable(capacity).take()


async def test_the_engines_machine_counts_not_this_one() -> None:
    """Half of its memory counts as free: 2 GB afford 4 of 45 MB each in a tenth of them."""
    async with ElsewhereBackend(NOTHING.script) as backend:
        capacity = await capacity_of(backend)
        assert isinstance(backend, SizedBackend)
    assert capacity == Capacity(3, 2_000_000_000)
    limit = affordable(capacity)
    assert [limit.take() for _ in range(5)] == [True, True, True, True, False]
