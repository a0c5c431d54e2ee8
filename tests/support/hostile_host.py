"""An orchestrator whose Sandboxes run a program that does not behave, beside one whose Sandboxes do.

python -m tests.support.hostile_host DIRECTORY: the program is read from stdin, what became of both jobs is written to
stdout as JSON, with the most memory that this process ever held.
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
from orchestrator.backends import docker
from orchestrator.sandbox import MIB, Limits
from tests.support import engine
from tests.support.project import ONE, Project, say, use

PYTHON = "/opt/perstack/bin/python"
SECONDS = 90
LIMITS = Limits(memory=192 * MIB, pids=64, tmp=16 * MIB)
REPLIES = {"one": [use(("listDirectory", {"path": "."}), text="looking"), say("all done")]}


@dataclass
class Story:
    """How a job went: the types of its events and whether they came each once, its end, and what was noted."""

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
        run_seconds=run_seconds,
        image=engine.runtime_image(),
    )
    job = replace(job, limits=LIMITS)
    command = None if program is None else (PYTHON, "-I", "-c", program)
    async with (
        docker.connect(os.environ, job.image, command=command) as backend,
        run_job(job, backend=backend, store=store, provider=provider_of(job), note=story.notes.append) as events,
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
    """Run both jobs and tell of them."""
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
