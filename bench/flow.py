"""Events a second, and what they cost the orchestrator."""

from bench.section import Section, Target, rows
from bench.soak.flow import Flow, measured

EVENTS = 30_000
SUSTAINED, LAG_MS = 5_000, 5
_NEARLY = 0.98


def flow() -> Section:
    """Measure at a steady thousand a second, at the required rate, and as fast as possible."""
    flows = {
        "1 000 a second": measured(1, 5_000, 1_000),
        f"{SUSTAINED} a second": measured(1, EVENTS, SUSTAINED),
        "as fast as it goes": measured(1, EVENTS, 1e9),
    }
    head = ["told by one Sandbox", "stored", "a second", "lag, median", "of a core", "CPU time of each"]
    table = rows(head, *([name, *_cells(each)] for name, each in flows.items()))
    steady, sustained, _ = flows.values()
    lost = sum(each.told - each.collected for each in flows.values())
    lag, rate = f"{steady.lag} ms", sustained.rate
    targets = (
        Target("events lost", "0", str(lost), lost == 0),
        Target("sustained", f"{SUSTAINED} events/s", f"{rate:.0f} events/s", rate >= _NEARLY * SUSTAINED),
        Target("from a Sandbox to the store", f"p50 ≤ {LAG_MS} ms at 1 000/s", lag, steady.lag <= LAG_MS),
    )
    return Section("Events", table, targets)


def _cells(each: Flow) -> tuple[str, ...]:
    cost = each.cpu / each.collected * 1e6
    return f"{each.collected} of {each.told}", f"{each.rate:.0f}", f"{each.lag} ms", f"{each.core}", f"{cost:.0f} µs"
