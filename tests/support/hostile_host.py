"""An orchestrator whose Sandboxes run a misbehaving program, next to one whose Sandboxes behave.

python -m tests.support.hostile_host DIRECTORY: the program is read from stdin, and the results of both jobs are written
to stdout as JSON, with the largest amount of memory that this process held.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.measure import peak_megabytes
from orchestrator import Config, Store, load_config, make_job, provider_of, run_job
from orchestrator.backends.docker import backend as docker
from orchestrator.plan.job_options import JobOptions
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB
from tests.support import engine
from tests.support.log_lines import collect_log
from tests.support.project import ONE, Project, say, use

PYTHON = "/opt/perstack/bin/python"
SECONDS = 90
LIMITS = DEFAULT_LIMITS.with_(memory=192 * MIB, pids=64, tmp=16 * MIB)
REPLIES = {"one": [use(("listDirectory", {"path": "."}), text="looking"), say("all done")]}


@dataclass
class Story:
    """How a job went: the types of its events and whether each came once, its end, and its notes."""

    types: list[str] = field(default_factory=list)
    in_order: bool = True
    status: str = ""
    error: str | None = None
    notes: list[str] = field(default_factory=list)


async def work(directory: Path, config: Config, job_id: str, program: str | None, run_seconds: float) -> Story:
    """Run a job whose Sandboxes run `program` in place of the runtime, where there is one."""
    story = Story()
    store = Store(directory / "perstack")
    job = make_job(
        "one",
        "go",
        config=config,
        env=os.environ,
        workspace=directory / "workspace",
        store=store.root,
        job_id=job_id,
        options=JobOptions(run_seconds=run_seconds, image=engine.runtime_image()),
    )
    job = replace(job, limits=LIMITS)
    command = None if program is None else (PYTHON, "-I", "-c", program)
    with collect_log(details=story.notes, job_id=job_id):
        async with (
            docker.connect(os.environ, job.image, command=command) as backend,
            run_job(job, backend=backend, store=store, provider=provider_of(job)) as events,
        ):
            async for recorded in events:
                story.types.append(recorded.event.type)
                story.in_order = story.in_order and recorded.event.position == len(story.types)
    if events.outcome is not None:
        story.status, story.error = events.outcome.status, events.outcome.error
    return story


async def both(directory: Path, program: str, run_seconds: float) -> dict[str, Story]:
    """Run the job that does not behave and one that does, at the same time."""
    config = load_config(Project.make(directory, "docker", ONE, REPLIES).directory / "perstack.toml")
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        hostile = tasks.create_task(work(directory, config, "hostile", program, run_seconds))
        peer = tasks.create_task(work(directory, config, "peer", None, SECONDS))
    return {"hostile": hostile.result(), "peer": peer.result()}


def main() -> None:
    """Run both jobs and print their results."""
    directory, run_seconds = Path(sys.argv[1]), float(sys.argv[2])
    (directory / "workspace").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(directory / "workspace", 65532, 65532)
    stories = asyncio.run(both(directory, sys.stdin.read(), run_seconds))
    told: dict[str, Any] = {name: asdict(story) for name, story in stories.items()}
    told["megabytes"] = peak_megabytes()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
