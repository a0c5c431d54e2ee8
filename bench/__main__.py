"""`make bench`: what a container per Run costs, against a bare `docker run` and against no sandbox at all.

Prints ratios and writes them into bench/RESULTS.md, bench/results.svg and, measured whole, bench/ratios.json. Machines
are shared and noisy: read ratios, not milliseconds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench import regression, report
from bench.connections import connections
from bench.crowd import crowd
from bench.egress import egress
from bench.fitness import fitness
from bench.fleet import fleet
from bench.flow import flow
from bench.growth import growth
from bench.kubernetes import kubernetes
from bench.links import links
from bench.projects import scratch
from bench.section import Section
from bench.shapes import depths, widths
from bench.starts import hops, starts
from bench.timeline import timeline
from bench.together import together
from bench.waiting import waiting
from tests.support import cluster

_IN_CLUSTER = ("kubernetes", "together", "fleet")
_CONNECTIONS = 20
"""Each round of the others has time for so many."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    missed = False
    with scratch() as directory:
        rounds = parser.parse_known_args()[0].rounds
        measures = _measures(directory, rounds)
        if not measures.keys() & _IN_CLUSTER:
            print("No cluster answers (`make cluster`): its measurements are kept.\n")
        parser.add_argument("--only", nargs="*", choices=measures, help="measure only these again, and keep the others")
        wanted = parser.parse_args()
        for name in wanted.only or measures:
            began = time.monotonic()
            section = measures[name]()
            print(f"{report.shown(section)}\n({time.monotonic() - began:.0f} s)\n", flush=True)
            report.keep(name, section, rounds)
            report.write((*measures, *_IN_CLUSTER))
            missed = missed or not all(target.met for target in section.targets)
    if not wanted.only:
        regression.record(regression.measured())
    return 1 if missed else 0


def _measures(directory: Path, rounds: int) -> Mapping[str, Callable[[], Section]]:
    few = max(3, rounds // 3)
    in_cluster: dict[str, Callable[[], Section]] = {}
    if cluster.answers():
        measured = (partial(kubernetes, directory, rounds), together, fleet)
        in_cluster = dict(zip(_IN_CLUSTER, measured, strict=True))
    return {
        "starts": partial(starts, directory, rounds),
        "hops": partial(hops, directory, few),
        "fitness": partial(fitness, directory, rounds),
        "widths": partial(widths, directory, few),
        "depths": partial(depths, directory, few),
        "links": partial(links, directory, rounds),
        "crowd": crowd,
        "flow": flow,
        "waiting": waiting,
        "egress": partial(egress, rounds * _CONNECTIONS),
        "connections": connections,
        "growth": partial(growth, directory),
        "timeline": partial(timeline, directory, rounds),
        **in_cluster,
    }


if __name__ == "__main__":
    sys.exit(main())
