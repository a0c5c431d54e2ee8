"""`make bench`: what a container per Run costs, against a bare `docker run` and against no sandbox at all.

Prints ratios and writes bench/RESULTS.md, bench/results.svg and bench/ratios.json. Machines are shared and noisy: read
ratios, not milliseconds.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench import regression
from bench.crowd import crowd
from bench.egress import egress
from bench.fitness import fitness
from bench.fleet import fleet
from bench.flow import flow
from bench.growth import growth
from bench.kubernetes import kubernetes
from bench.plot import plot
from bench.projects import scratch
from bench.section import Section, rows
from bench.shapes import depths, widths
from bench.starts import hops, starts
from bench.timeline import timeline
from bench.together import together
from bench.waiting import waiting
from tests.support import cluster

HERE = Path(__file__).parent
_CONNECTIONS = 20
"""Each round of the others has time for so many."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    with scratch() as directory:
        measures = _measures(directory, parser.parse_known_args()[0].rounds)
        parser.add_argument("--only", nargs="*", choices=measures, help="print these and write nothing")
        wanted = parser.parse_args()
        sections = []
        for name in wanted.only or measures:
            began = time.monotonic()
            sections.append(measures[name]())
            print(f"{_written(sections[-1])}\n({time.monotonic() - began:.0f} s)\n", flush=True)
    if not wanted.only:
        (HERE / "RESULTS.md").write_text(render(sections, wanted.rounds))
        plot(sections, HERE / "results.svg")
        regression.record(regression.measured())
    missed = [target for section in sections for target in section.targets if not target.met]
    return 1 if missed else 0


def _measures(directory: Path, rounds: int) -> Mapping[str, Callable[[], Section]]:
    few = max(3, rounds // 3)
    in_cluster: dict[str, Callable[[], Section]] = {}
    if cluster.answers():
        in_cluster = {"kubernetes": partial(kubernetes, directory, few), "together": together, "fleet": fleet}
    return {
        "starts": partial(starts, directory, rounds),
        "hops": partial(hops, directory),
        "fitness": partial(fitness, directory, rounds),
        "widths": partial(widths, directory, few),
        "depths": partial(depths, directory, few),
        "crowd": crowd,
        "flow": flow,
        "waiting": waiting,
        "egress": partial(egress, rounds * _CONNECTIONS),
        "growth": partial(growth, directory),
        "timeline": partial(timeline, directory, rounds),
        **in_cluster,
    }


def render(sections: list[Section], rounds: int) -> str:
    """The report as Markdown."""
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    targets = [target for section in sections for target in section.targets]
    said = (
        f"Written by `make bench` ({rounds} interleaved rounds in one process; medians, ± half the quartile distance; "
        "a ratio is the median of the rounds' own). Machines are shared and noisy: read ratios, not milliseconds. "
        f"Machine: `{json.dumps(machine)}`."
    )
    parts = (
        "# Figures",
        said,
        "\n".join((rows(["what", "target", "measured", "met"]), *map(str, targets))),
        "![Seconds by latency of the model, by width and by depth](results.svg)",
        *map(_written, sections),
    )
    return "\n\n".join(parts) + "\n"


def _written(section: Section) -> str:
    return f"## {section.title}\n\n{section.text}"


if __name__ == "__main__":
    sys.exit(main())
