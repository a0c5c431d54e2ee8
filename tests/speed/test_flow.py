"""The soak's many events and many Runs, a little of each; `make bench` and `make soak` measure how fast they are."""

import pytest

from bench.soak.flow import measured


@pytest.mark.docker
@pytest.mark.alone
@pytest.mark.parametrize(("runs", "count", "rate"), [(1, 10_000, 5000), (8, 40, 20)])
def test_all_events_of_a_flow_are_collected(
    runs: int, count: int, rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """All events arrive from one Run that writes thousands a second, and from several that write at once."""
    found = measured(runs, count, rate)
    with capsys.disabled():
        print(f"\n{found.collected} events of {runs} Runs, {found.rate:.0f} a second")  # noqa: T201 - the finding
    assert found.collected == found.told == runs * count
