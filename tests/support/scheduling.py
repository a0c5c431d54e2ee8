"""All that schedules Runs, real but for its backend: broker, records and state directories over the fake."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import Store, load_config, make_job, provider_of
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.server import Broker
from orchestrator.jobs.attempt import Attempts
from orchestrator.jobs.event_stream import JobEvents
from orchestrator.jobs.run_job import run_job
from orchestrator.jobs.run_tree import RunTree
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.run_plan import Plan, first, plan, sandbox_spec
from orchestrator.pool.launch import LaunchContext
from orchestrator.pool.pool import Pool
from orchestrator.pool.prewarm import WarmLimit
from orchestrator.pool.state_directories import directory_of
from orchestrator.sandbox.keys import session_key
from orchestrator.sandbox.naming import sandbox_name
from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.store import JobRecords
from orchestrator.testing.fake_backend import FakeBackend, FakeSandbox
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.units import now
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import Event
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import EventLine
from orchestrator.wire.run import Run, Start
from tests.support.log_lines import collect_log
from tests.support.traces import outside_directory

SECONDS = 20
"""A test that takes as long is stuck."""

_SHORT = next(place for place in ("/dev/shm", "/tmp") if os.access(place, os.W_OK | os.X_OK))
"""In memory where that is possible: a disk that others use makes a job of milliseconds one of tenths of a second."""

JOB_ID = "job"
TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["left", "right"]
[experts.left]
instruction = "Left."
[experts.right]
instruction = "Right."
[experts.alone]
instruction = "Alone."
"""


async def idle(guest: Guest) -> None:
    """Wait for a Run, and complete it."""
    await guest.begin()
    await guest.complete("done")


async def forever(guest: Guest) -> None:
    """Take a Run and never end it."""
    await guest.begin()
    await asyncio.Event().wait()


async def settled() -> None:
    """Let all that is ready to run have its turn."""
    for _ in range(20):
        await asyncio.sleep(0)


async def turns(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so` where no event reports it: check in each turn of the event loop."""
    while not is_so():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


def kinds(events: Sequence[Event]) -> list[str]:
    """The types of events."""
    return [event.type for event in events]


_OPTIONS = {"verbose", "run_seconds", "job_seconds", "link"}


def make(root: Path, expert: str = "boss", toml: str = TEAM, **changes: Any) -> Job:
    """A job of an Expert, with everything it leaves on the machine below `root`; `changes` are options and fields."""
    (root / "perstack.toml").write_text(f'[provider]\nproviderName = "scripted"\n{toml}')
    (root / "replies.json").write_text(json.dumps({}))
    workspace = root / "w"
    workspace.mkdir(exist_ok=True)
    job = make_job(
        expert,
        "go",
        config=load_config(root / "perstack.toml"),
        env={},
        backend="process",
        workspace=workspace,
        store=root / "store",
        job_id=JOB_ID,
        options=JobOptions(**{name: changes.pop(name) for name in _OPTIONS & changes.keys()}),
    )
    return replace(job, state_root=root / "s", **changes)


@asynccontextmanager
async def short_root() -> AsyncIterator[Path]:
    """Give a directory whose path leaves room for those of sockets, within the time that a test may take."""
    with outside_directory(_SHORT) as root:
        async with asyncio.timeout(SECONDS):
            yield root


@dataclass
class World:
    """What a job is scheduled with, and the results: remarks, and events in their order."""

    root: Path
    job: Job
    backend: FakeBackend
    store: Store
    records: JobRecords
    key: bytes
    notes: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    granted: list[tuple[str, ...]] = field(default_factory=list)
    keeping: Callable[[], Awaitable[None]] | None = None
    """Awaited before a checkpoint is written."""
    _place: LaunchContext | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def directory(self) -> Path:
        """Above the state directories."""
        return directory_of(self.job.instance, self.job.id, self.job.state_root)

    @property
    def place(self) -> LaunchContext:
        """The backend of the Sandboxes."""
        assert self._place is not None
        return self._place

    @asynccontextmanager
    async def scheduling(self) -> AsyncIterator[None]:
        """Hold a broker for the job."""
        records = self.records
        run_records = RunRecords(self._keep_checkpoint, records.keep_result, records.keep_reply, records.reply)
        async with Broker(provider_of(self.job), run_records, lambda _: None) as broker:
            self._place = LaunchContext(self.job, self.backend, broker, records, self.directory, self._publish, now)
            with collect_log(details=self.notes):
                yield

    @asynccontextmanager
    async def pool(self, at_start: int = 0, warm_limit: WarmLimit | None = None, start: int = 1) -> AsyncIterator[Pool]:
        """Hold a pool; its Sandboxes are numbered from `start`. What is unused is removed at the end."""
        async with asyncio.TaskGroup() as tasks:
            pool = Pool(self.place, tasks, itertools.count(start), at_start, warm_limit or WarmLimit(9))
            try:
                yield pool
            finally:
                pool.close()

    @asynccontextmanager
    async def attempts(
        self, at_start: int = 0, warm_limit: WarmLimit | None = None, start: int = 1
    ) -> AsyncIterator[Attempts]:
        """Hold what works attempts, over a pool like that."""
        async with self.pool(at_start, warm_limit, start) as pool:
            yield Attempts(self.place, pool, self.key)

    @asynccontextmanager
    async def tree(self, slots: int = 8, start: int = 1, begun: set[str] | None = None) -> AsyncIterator[RunTree]:
        """Hold a tree of Runs."""
        async with self.attempts(start=start) as attempts:
            note = lambda names: self.granted.append(tuple(names))  # noqa: E731 - it is given away
            yield RunTree(self.place, attempts, asyncio.Semaphore(slots), note, set() if begun is None else begun)

    def plan(self, start: Start | None = None) -> Plan:
        """Plan the Run of a start, by default the job's first."""
        return plan(self.job, start or first(self.job), self.key, now())

    def name(self, ordinal: int) -> str:
        """The name of the Sandbox of this number."""
        return sandbox_name(self.job.id, ordinal, self.job.instance)

    def session_key(self, run: Run, ordinal: int) -> str:
        """What a Sandbox presents that has a Run."""
        return session_key(self.key, self.name(ordinal), run.attempt_ref)

    def leave_state(self, ordinal: int) -> Path:
        """Make the state directory that a killed orchestrator left."""
        state = self.directory / str(ordinal)
        state.mkdir(parents=True)
        (state / SPOOL_NAME).touch()
        make_socket_directory(state)
        return state

    def leave_behind(self, ordinal: int) -> FakeSandbox:
        """Start a Sandbox as a killed orchestrator left it, with its state directory."""
        return self.backend.leave_behind(sandbox_spec(self.job, ordinal, self.leave_state(ordinal), now() // 1000))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until `is_so`, which is called again after each event."""
        while not is_so():
            await self._changed.wait()

    async def _keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        if self.keeping is not None:
            await self.keeping()
        await self.records.keep_checkpoint(checkpoint)

    async def _publish(self, collected: EventLine) -> None:
        self.events.append((await self.records.append(collected.event, collected.line)).event)
        self._changed.set()
        self._changed = asyncio.Event()


@asynccontextmanager
async def world(
    script: Script = idle,
    *,
    expert: str = "boss",
    toml: str = TEAM,
    before: Callable[[JobRecords, Job], Awaitable[None]] | None = None,
    make_backend: Callable[[Script], FakeBackend] = FakeBackend,
    **changes: Any,
) -> AsyncIterator[World]:
    """Give all that exists before a job's first Run, and check that nothing is left after it.

    With `before`, the job was worked until then and its orchestrator was killed; `before` writes what it recorded.
    `changes` are of the Job.
    """
    async with short_root() as root:
        job, store = make(root, expert, toml, **changes), Store(root / "store")
        record = JobRecord(id=job.id, coordinator_expert_key=job.expert_key, started_at=now())
        if before is not None:
            async with store.create(record) as records:
                await before(records, job)
        opened = store.create(record) if before is None else store.open(job.id)
        async with opened as records, make_backend(script) as backend:
            made = World(root, job, backend, store, records, await records.key())
            made.directory.mkdir(parents=True, exist_ok=True)
            async with made.scheduling():
                yield made
            assert backend.left == []
            assert [path.name for path in made.directory.iterdir() if path.name.isdecimal()] == []


@dataclass
class Worked:
    """A job that ran to its end: its events, and what is left."""

    root: Path
    job: Job
    backend: FakeBackend
    store: Store
    notes: list[str] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[JobEvents]:
        """Run the job; `options` are those of `run_job`."""
        with collect_log(self.announced, self.notes, job_id=self.job.id):
            async with run_job(
                self.job, backend=self.backend, store=self.store, provider=provider_of(self.job), **options
            ) as events:
                yield events

    async def to_the_end(self, **options: Any) -> JobEvents:
        """Run the job and take all its events."""
        async with self.running(**options) as events:
            async for recorded in events:
                self.events.append(recorded.event)
        return events

    @property
    def record(self) -> JobRecord | None:
        """What the store has of it."""
        return self.store.job(JOB_ID)

    def left(self) -> tuple[list[str], list[str]]:
        """Sandboxes that are left, and directories of Sandboxes."""
        state = self.job.state_root
        return self.backend.left, [path.name for path in state.iterdir()] if state.exists() else []


@asynccontextmanager
async def whole_job(
    script: Script = idle,
    *,
    expert: str = "boss",
    toml: str = TEAM,
    make_backend: Callable[[Script], FakeBackend] = FakeBackend,
    **changes: Any,
) -> AsyncIterator[Worked]:
    """Give a job that is about to run over the fake."""
    async with short_root() as root, make_backend(script) as backend:
        yield Worked(root, make(root, expert, toml, **changes), backend, Store(root / "store"))
