"""A job driven from a program, and what it cost the orchestrator, in a separate process.

python -m bench.driven DIRECTORY EXPERT BACKEND writes what it took to stdout as JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.command import IMAGE
from bench.measure import cpu_seconds, peak_megabytes
from bench.projects import QUERY
from orchestrator import Store, load_config, make_job, open_backend, provider_of, run_job
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions

LINK = os.environ.get("PERSTACK_LINK", "auto")
"""As for the command, so that both links can be measured."""


@dataclass(frozen=True, slots=True)
class Driven:
    """Runs and events of a job; seconds from its first event to its last, of hops, of the orchestrator's CPU time.

    `megabytes` is the most memory of the orchestrator.
    """

    runs: int
    events: int
    span: float
    hops: tuple[float, ...]
    cpu: float
    megabytes: int


def driven(directory: Path, expert: str, backend: str, link: str = LINK) -> Driven:
    """Drive a job in a separate process; `link` is the job's option.

    Raises:
        subprocess.CalledProcessError: it failed; stderr has the reason.
    """
    command = [sys.executable, "-m", "bench.driven", str(directory), expert, backend]
    fields: dict[str, Any] = output_of(command, link)
    return Driven(**fields | {"hops": tuple(fields["hops"])})


def output_of(command: Sequence[str], link: str) -> Any:
    """Run a program that measures jobs with this link, and return what it writes to stdout as JSON.

    Raises:
        subprocess.CalledProcessError: it failed; stderr has the reason.
    """
    environment = {**os.environ, "PERSTACK_LINK": link}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)


def job_in(directory: Path, expert: str, backend: str, job_id: str | None = None) -> tuple[Job, Store]:
    """Make a job of the project in a directory, and its store."""
    config, store = load_config(directory / "perstack.toml"), Store(directory / "perstack")
    workspace = directory / "workspace"
    job = make_job(
        expert, QUERY, config=config, env={}, backend=backend, workspace=workspace, store=store.root,
        job_id=job_id, options=JobOptions(image=IMAGE, link=LINK),
    )  # fmt: skip
    return job, store


async def _drive(directory: Path, expert: str, backend: str) -> Driven:
    job, store = job_in(directory, expert, backend)
    before = cpu_seconds()
    async with (
        open_backend(backend, os.environ, image=job.image) as place,
        run_job(job, backend=place, store=store, provider=provider_of(job)) as events,
    ):
        times = [recorded.event.timestamp async for recorded in events]
    outcome = events.outcome
    if outcome is None or outcome.status != "completed":
        sys.exit(f"the job did not complete: {outcome}")
    receipt = outcome.receipt
    return Driven(
        runs=receipt.containers,
        events=len(times),
        span=(times[-1] - times[0]) / 1000,
        hops=tuple(hop.seconds for hop in receipt.hops),
        cpu=cpu_seconds() - before,
        megabytes=peak_megabytes(),
    )


if __name__ == "__main__":
    measured = asyncio.run(_drive(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
    sys.stdout.write(json.dumps(asdict(measured)))
