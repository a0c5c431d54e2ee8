"""How many Sandboxes are warm: by need, within what the machine affords."""

import pytest

from orchestrator.prewarm import Budget, affordable, at_start, size, while_generating
from orchestrator.wire.expert import Expert

ALONE = Expert(key="alone", name="alone", instruction="i")
LEADER = Expert(key="boss", name="boss", instruction="i", delegates=("left", "right"))
GIB = 1024**3


@pytest.mark.parametrize(
    ("expert", "cores", "wish", "expected"),
    [(ALONE, 8, None, 0), (LEADER, 1, None, 1), (LEADER, 8, None, 2), (LEADER, 8, 0, 0), (ALONE, 1, 5, 5)],
)
def test_at_the_start(expert: Expert, cores: int, wish: int | None, expected: int) -> None:
    """With the coordinator's own they are one more than there are cores, at most three, or what was asked for."""
    assert at_start(expert, cores, wish) == expected


@pytest.mark.parametrize(
    ("expert", "fan_out", "wish", "expected"),
    [(ALONE, 8, None, 0), (LEADER, 1, None, 3), (LEADER, 5, None, 6), (LEADER, 32, None, 9), (LEADER, 5, 0, 0),
     (LEADER, 1, 7, 7)],
)  # fmt: skip
def test_while_the_model_is_asked(expert: Expert, fan_out: int, wish: int | None, expected: int) -> None:
    """One for each delegate or for as many calls as there were in one reply before, and one to go on in; in bounds."""
    assert while_generating(expert, fan_out, wish) == expected


@pytest.mark.parametrize(
    ("cores", "available", "expected"),
    [(2, 24 * GIB, 8), (64, 24 * GIB, 54), (64, 1 * GIB, 2), (1, 0, 1)],
)
def test_what_a_machine_affords(cores: int, available: int, expected: int) -> None:
    """Four for each core, in a tenth of the memory that is left; never none."""
    assert size(cores, available) == expected


def test_a_budget_is_shared_and_given_back() -> None:
    """What one job keeps warm another cannot, until it is used or gone."""
    budget = Budget(2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.give_back()
    assert [budget.take() for _ in range(2)] == [True, False]


def test_this_machine_affords_some() -> None:
    """However little is left, one can be warm."""
    assert affordable().take()
