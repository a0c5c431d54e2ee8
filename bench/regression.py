"""The few ratios that CI watches: `make bench` records them in ratios.json, a test compares.

python -m bench.regression measures them once and prints them; with --record it writes them down.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import command, driven, projects
from bench.fitness import EXPERT
from bench.measure import Figures, Ratio, interleave
from bench.projects import scratch

RECORD = Path(__file__).with_name("ratios.json")
ROUNDS = 7
_MARGIN = 3
_LEAST = 0.1
_DELAY_MS = 300
_HOPS = 4
"""Replies of a coordinator that call a delegate, so twice as many hops, of which the middle one counts."""


def measured(rounds: int = ROUNDS) -> dict[str, Ratio]:
    """Measure each, in interleaved rounds."""
    with scratch() as directory:
        at_once = projects.fitness(directory / "at-once", 0)
        slow = projects.fitness(directory / "slow", _DELAY_MS)
        team = projects.team(directory / "team", 1, _DELAY_MS, rounds=_HOPS)
        inside = [sys.executable, "-m", "bench.inprocess", str(slow.directory), EXPERT]
        figures = interleave(
            {
                "bare": command.bare,
                "cold": lambda: command.job(at_once, EXPERT, "docker").first,
                "whole": lambda: command.job(at_once, EXPERT, "docker").whole,
                "slow": lambda: command.job(slow, EXPERT, "docker").span,
                "inside": lambda: command.run(inside).span,
                "hop": lambda: Figures("", driven.driven(team.directory, "boss", "docker").hops).percentile(0.5),
                "runtime": partial(_cpu, "import orchestrator.runtime.__main__, orchestrator.runtime.loop"),
                "asyncio": partial(_cpu, "import asyncio"),
            },
            rounds,
        )
    return {
        "a cold start over a bare docker run": Ratio.of(figures["cold"], figures["bare"]),
        "the fitness job over a bare docker run": Ratio.of(figures["whole"], figures["bare"]),
        "the fitness job at 300 ms over the same in one process": Ratio.of(figures["slow"], figures["inside"]),
        "a warm hop over a bare docker run": Ratio.of(figures["hop"], figures["bare"]),
        "CPU time to import the runtime over that of asyncio": Ratio.of(figures["runtime"], figures["asyncio"]),
    }


def recorded() -> dict[str, Ratio]:
    """Read what was written down."""
    return {name: Ratio(**ratio) for name, ratio in json.loads(RECORD.read_text()).items()}


def record(ratios: Mapping[str, Ratio]) -> None:
    """Write them down."""
    RECORD.write_text(json.dumps({name: asdict(ratio) for name, ratio in ratios.items()}, indent=2) + "\n")


def is_worse(now: Ratio, before: Ratio) -> bool:
    """Whether a ratio has grown by more than both spreads explain."""
    apart = max(_MARGIN * (now.spread + before.spread), _LEAST * before.median)
    return now.median - before.median > apart


def _cpu(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", "-c", f"import gc; gc.disable(); {program}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _main(wish: Callable[[Mapping[str, Ratio]], None] | None) -> None:
    ratios = measured()
    for name, ratio in ratios.items():
        print(f"{name}: {ratio}")
    if wish is not None:
        wish(ratios)


if __name__ == "__main__":
    _main(record if "--record" in sys.argv else None)
