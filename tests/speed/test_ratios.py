"""Ratios that `make bench` recorded, measured again, so that a change that slows a hop is noticed."""

from collections.abc import Mapping

import pytest

from bench.measure import Ratio
from bench.regression import is_worse, measured, recorded


@pytest.mark.parametrize(
    ("now", "before", "worse"),
    [
        (Ratio(3.0, 0.1), Ratio(3.0, 0.1), False),
        (Ratio(3.5, 0.1), Ratio(3.0, 0.1), False),
        (Ratio(3.7, 0.1), Ratio(3.0, 0.1), True),
        (Ratio(3.2, 0.0), Ratio(3.0, 0.0), False),
        (Ratio(3.4, 0.0), Ratio(3.0, 0.0), True),
        (Ratio(1.0, 0.0), Ratio(3.0, 0.0), False),
    ],
)
def test_what_is_worse(now: Ratio, before: Ratio, worse: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """More than both spreads explain, and a tenth at least."""
    assert is_worse(now, before) is worse


@pytest.mark.docker
@pytest.mark.alone
def test_no_ratio_is_worse_than_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """A start, a warm hop, the fitness job at once and with a model that takes its time, and the runtime's imports.

    What seems worse is measured again: a neighbour's load passes, a regression stays.
    """
    before, now = recorded(), measured()
    assert now.keys() == before.keys()
    if worse_of(now, before):
        again = measured()
        now = {name: min(ratio, again[name], key=lambda each: each.median) for name, ratio in now.items()}
    with capsys.disabled():
        for name, ratio in now.items():
            print(f"\n{name}: {ratio}, recorded {before[name]}", end="")  # noqa: T201 - the finding
    assert worse_of(now, before) == {}


def worse_of(now: Mapping[str, Ratio], before: Mapping[str, Ratio]) -> dict[str, str]:
    """Name the ratios that are worse than they were."""
    return {name: str(ratio) for name, ratio in now.items() if is_worse(ratio, before[name])}
