"""`make soak`: everything that can go wrong, often, with figures; writes bench/RELIABILITY.md.

Nothing may be lost, repeated or left behind: the exit code is 1 if anything was.
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.projects import scratch
from bench.soak.cuts import cuts
from bench.soak.flow import measured
from bench.soak.kills import Kills, at_moments, at_steps
from bench.soak.report import Row, keep, write
from bench.soak.restart import restart
from orchestrator.store import Store
from orchestrator.wire.event import StreamRunResult
from orchestrator.wire.job_record import JobRecord
from tests.support import cluster

EVENTS = 10_000
CORES = 1.0
_IN_TIME = 0.9
"""Of the rate that Sandboxes tell at, how much must be collected while they do."""

MEGABYTES = 300

Told = tuple[str, str, bool]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--share", type=float, default=1.0, help="share of the repetitions, up to 1")
    parser.add_argument("--only", nargs="*", choices=MEASURES, help="run only these, keep results of the others")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}")
    rows = asyncio.run(_rows(wanted.only or tuple(MEASURES), wanted.seed, wanted.share))
    if wanted.share == 1:
        write(MEASURES)
    return 0 if all(row.good for row in rows) else 1


async def _rows(names: Sequence[str], seed: int, share: float) -> list[Row]:
    if not cluster.answers():
        print("NO KUBERNETES CLUSTER ANSWERS (MAKE CLUSTER): NOTHING IS KILLED THERE")
        names = [name for name in names if not name.endswith("kubernetes")]
    rows = []
    with scratch() as directory:
        for name in names:
            # Separate, so that a part run alone does the same as among all.
            chance = random.Random(f"{name} {seed}")  # noqa: S311 - a seed that is printed
            began = time.monotonic()
            what, came, good = await MEASURES[name](Soak(directory, chance, share))
            rows.append(Row(what, came, good, round(time.monotonic() - began, 1), seed))
            print(rows[-1], flush=True)
            if share == 1:
                keep(name, rows[-1])
    return rows


@dataclass(frozen=True, slots=True)
class Soak:
    """What is measured: each gives what was done, what came of it, and whether that is as it must be."""

    directory: Path
    chance: random.Random
    share: float

    def _some(self, count: int) -> int:
        return max(1, round(count * self.share))

    async def cuts(self) -> Told:
        """The engine's stream of a Sandbox's output, cut."""
        told = await cuts(self._some(1000), self.chance)
        came = f"{told.lost} lost, {told.repeated} repeated of {told.events} events"
        return f"the engine's stream cut at random bytes, {told.cuts} times", came, told.lost == told.repeated == 0

    async def steps(self, backend: str, every: int) -> Told:
        """The orchestrator killed at its durable steps."""
        told = await at_steps(self.directory / f"steps-{backend}", backend, max(1, round(every / self.share)))
        return _killed(f"killed at {told.jobs} durable steps in turn ({backend})", told)

    async def moments(self, backend: str, count: int) -> Told:
        """The orchestrator killed at any moment."""
        told = await at_moments(self.directory / f"moments-{backend}", backend, self._some(count), self.chance)
        return _killed(f"`kill -9` at random moments, {told.kills} times in {told.jobs} jobs ({backend})", told)

    async def restart(self, how: signal.Signals) -> Told:
        """The engine ended and started again."""
        told = await restart(self._some(20), how)
        came = (
            f"{told.completed} of {told.runs} Runs completed, {told.again} in a new attempt; "
            f"{told.lost} events lost, {told.repeated} repeated, {told.left} Sandboxes left"
        )
        good = told.completed == told.runs and told.lost == told.repeated == told.left == 0
        return f"the engine restarted ({how.name}) during {told.runs} Runs", came, good

    async def flow(self, runs: int, count: int, rate: int) -> Told:
        """Many events, or many Runs."""
        runs, count = self._some(runs), self._some(count)
        told = await asyncio.to_thread(measured, runs, count, rate)
        came = (
            f"{told.collected} of {told.told} events, {told.rate:.0f} a second; "
            f"{told.core} of a core, {told.megabytes} MB, median lag {told.lag} ms"
        )
        in_time = told.rate >= _IN_TIME * runs * rate
        good = told.collected == told.told and in_time and told.core <= CORES and told.megabytes <= MEGABYTES
        return f"{runs} Run{'s' if runs > 1 else ''}, {rate} events a second each", came, good

    async def replay(self) -> Told:
        """Stored events, read back."""
        with scratch() as directory:
            store = Store(directory / "perstack")
            async with store.create(JobRecord(id="j", coordinator_expert_key="x", started_at=1)) as records:
                for number in range(1, EVENTS + 1):
                    event = StreamRunResult(
                        id=f"e{number}", timestamp=1, job_id="j", run_id="r", attempt=1, seq=number, expert_key="x",
                        step_number=1, delta="a piece of a reply, of a usual length",
                    )  # fmt: skip
                    await records.append(event)
            began = time.perf_counter()
            records = store.read("j") or sys.exit("no job")
            count = sum(1 for _ in records.events())
            seconds = time.perf_counter() - began
        return (
            f"{EVENTS} stored events read back",
            f"{count} events in {seconds:.2f} s",
            count == EVENTS and seconds <= 1,
        )


def _killed(what: str, told: Kills) -> Told:
    for wrong in told.wrong:
        print(f"    {wrong}")
    came = f"{len(told.wrong)} with anything lost, repeated, done twice or left behind"
    return f"orchestrator {what}", came, not told.wrong


MEASURES: Mapping[str, Callable[[Soak], Awaitable[Told]]] = {
    "cuts": Soak.cuts,
    "steps-process": partial(Soak.steps, backend="process", every=1),
    "steps-docker": partial(Soak.steps, backend="docker", every=4),
    "steps-kubernetes": partial(Soak.steps, backend="kubernetes", every=8),
    "moments-process": partial(Soak.moments, backend="process", count=120),
    "moments-docker": partial(Soak.moments, backend="docker", count=80),
    "moments-kubernetes": partial(Soak.moments, backend="kubernetes", count=40),
    "restart-sigterm": partial(Soak.restart, how=signal.SIGTERM),
    "restart-sigkill": partial(Soak.restart, how=signal.SIGKILL),
    "flow-fast": partial(Soak.flow, runs=1, count=50_000, rate=5000),
    "flow-many": partial(Soak.flow, runs=200, count=600, rate=20),
    "replay": Soak.replay,
}
"""By the names that --only takes, in the order of the report."""

if __name__ == "__main__":
    sys.exit(main())
