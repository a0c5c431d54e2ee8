"""The records of one job."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from orchestrator.errors import StoreError
from orchestrator.keys import KEY_BYTES
from orchestrator.store.event_log import EventLog, Recorded
from orchestrator.store.files import kept_secret, path_part, read_value, readable, sync, write_below
from orchestrator.store.progress import last_of_each_run
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import TERMINAL_TYPES, Event
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import REQUEST_ID, Reply, calls_made
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord
from orchestrator.wire.line import decode
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import RunSetting, Start
from orchestrator.wire.usage import Usage

_WRITERS = 4


class JobRecords:
    """What is known of one job, held by one orchestrator.

    What `keep_result` and `keep_reply` were awaited for is on the disk: the world has seen it. The rest is written, so
    that it outlives this process, and on the disk soon after: should the machine lose its power, it follows from those.
    """

    def __init__(
        self,
        directory: Path,
        log: EventLog,
        mask: Callable[[bytes], bytes],
        permit: Callable[[], None] = lambda: None,
        key: bytes | None = None,
    ) -> None:
        self._directory = directory
        self._log = log
        self._mask = mask
        self._permit = permit
        self._key = key
        # Threads of its own, so that leaving waits for what a cancelled caller had begun to write.
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="store")
        self._damage: list[StoreError] = []
        # A new job has no earlier work; of one that is opened it is read once.
        found = readable(self._directory / "checkpoints", Checkpoint, note=self._damage.append)
        self._earlier = {run: checkpoint.id for run, checkpoint in last_of_each_run(found).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writers.shutdown()

    async def append(self, event: Event, line: bytes | None = None) -> Recorded:
        """Write an event, give it its position. `line` is the event as it came, without the newline.

        Raises:
            StoreError: the disk refuses; the event is not recorded.
        """
        whole = line if line is not None else event.to_json()
        masked = self._mask(whole)
        self._permit()
        return self._log.append(event if masked == whole else decode(masked), masked)

    async def keep_job(self, record: JobRecord) -> None:
        """Write `job.json`.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._directory / "job.json", record, indent=2)

    async def keep_start(self, start: Start) -> None:
        """Write where the coordinator's work begins, each time that the user asks for some.

        Raises:
            StoreError: the disk refuses, or an earlier start is damaged.
        """
        await self._keep(self._directory / "starts" / f"{len(self.starts()) + 1:06}.json", start)

    async def keep_setting(self, setting: RunSetting, sandbox: int | None = None) -> None:
        """Write what a Run was started with, and the number of the `sandbox` that is about to be given it.

        Of a setting that is there only that and `updated_at` change (behaviour H1).

        Raises:
            StoreError: the disk refuses, or the setting that is there is damaged.
        """
        path = self._run(setting.run_id) / "run-setting.json"
        if path.exists():
            setting = read_value(path, RunSetting).with_(updated_at=setting.updated_at)
        if sandbox is not None:
            setting = setting.with_(sandboxes=(*self.sandboxes(setting.run_id), sandbox))
        await self._keep(path, setting)

    async def key(self) -> bytes:
        """Read the secret that this job's others derive from; where none was given, it is made the first time.

        Raises:
            StoreError: the disk refuses.
        """
        if self._key is not None:
            return self._key
        path = self._directory / "key"
        return await asyncio.get_running_loop().run_in_executor(self._writers, kept_secret, path, KEY_BYTES)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._checkpoint_path(checkpoint.id), checkpoint)

    async def keep_result(self, run_id: str, result: ToolResult) -> None:
        """Write what a tool of a Run answered.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._run(run_id) / "results" / f"{identify(result.id)}.json", result, synced=True)

    async def keep_reply(self, run_id: str, request_id: str, reply: Reply) -> None:
        """Write what the model replied to a request of a Run.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._reply_path(run_id, request_id), reply, synced=True)

    async def reply(self, run_id: str, request_id: str) -> Reply | None:
        """Read what the model replied to a request, if it did.

        Raises:
            StoreError: the record is damaged.
        """
        path = self._reply_path(run_id, request_id)
        return read_value(path, Reply) if path.exists() else None

    def job(self) -> JobRecord:
        """Read `job.json`.

        Raises:
            StoreError: it is not there, or damaged.
        """
        return read_value(self._directory / "job.json", JobRecord)

    def starts(self) -> tuple[Start, ...]:
        """Read where the coordinator's work began, in the order in which the user asked.

        Raises:
            StoreError: a record is damaged.
        """
        return tuple(read_value(path, Start) for path in sorted((self._directory / "starts").glob("*.json")))

    def earlier(self, run_id: str) -> Checkpoint | None:
        """Read the last checkpoint that a Run had left when these records were opened.

        Raises:
            StoreError: it is damaged.
        """
        checkpoint_id = self._earlier.get(run_id)
        return None if checkpoint_id is None else self.checkpoint(checkpoint_id)

    def check_checkpoints(self) -> None:
        """See that no Run may have come further than `earlier` says.

        Raises:
            StoreError: a checkpoint was damaged when these records were opened.
        """
        for error in self._damage:
            raise error

    def calls_made(self, run_id: str) -> int:
        """How many model calls a Run made, up to the last that was answered."""
        return calls_made(self._answered(run_id))

    def generations(self, last: Checkpoint) -> int:
        """Count the model calls of a conversation up to the end of the Run that left `last`.

        Raises:
            StoreError: the Run's record is damaged.
        """
        return self.setting(last.run_id).generations + max(self.calls_made(last.run_id), last.generations)

    def sandboxes(self, run_id: str) -> tuple[int, ...]:
        """Read the numbers of the Sandboxes that were given a Run, one for each attempt; 0 where that is not known.

        It is not where the machine lost its power after an attempt had told something, but before this was on the disk.

        Raises:
            StoreError: the Run's record is damaged.
        """
        path = self._run(run_id) / "run-setting.json"
        known = read_value(path, RunSetting).sandboxes if path.exists() else ()
        return known + (0,) * (self._log.attempts(run_id) - len(known))

    def answered(self, run_id: str) -> dict[str, Usage]:
        """Read what each model call of a Run used that was answered, by its request id; damaged ones are left out."""
        found: dict[str, Usage] = {}
        for request_id, path in self._answered(run_id).items():
            with suppress(StoreError):
                found[request_id] = read_value(path, Reply).usage
        return found

    def last_seq(self, run_id: str, attempt: int) -> int:
        """The number of the last event of an attempt that was stored when these records were opened; 0 if none was."""
        return self._log.last(run_id, attempt).seq

    def is_told(self, run_id: str, attempts: int) -> bool:
        """Whether the terminal event of a Run was stored when these records were opened."""
        last = {self._log.last(run_id, attempt).type for attempt in range(1, attempts + 1)}
        return not TERMINAL_TYPES.isdisjoint(last | self._log.told_here(run_id))

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            StoreError: there is none of that id, or it is damaged.
        """
        path = self._checkpoint_path(checkpoint_id)
        if not path.exists():
            job = self._directory.name
            message = f"checkpoint not found: {checkpoint_id!r} is not one of job {job!r}; see `log --job {job} --json`"
            raise StoreError(message)
        return read_value(path, Checkpoint)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Read all checkpoints by step; what cannot be read is left out (behaviour H1)."""
        found = readable(self._directory / "checkpoints", Checkpoint)
        return tuple(sorted(found, key=lambda checkpoint: (checkpoint.step_number, checkpoint.id)))

    def setting(self, run_id: str) -> RunSetting:
        """Read what a Run was started with.

        Raises:
            StoreError: there is no such Run, or the record is damaged.
        """
        return read_value(self._run(run_id) / "run-setting.json", RunSetting)

    def settings(self) -> tuple[RunSetting, ...]:
        """Read what all Runs were started with, by update; what cannot be read is left out (behaviour H1)."""
        found = readable(self._directory / "runs", RunSetting, "*/run-setting.json")
        return tuple(sorted(found, key=lambda setting: (-setting.updated_at, setting.run_id)))

    def replies(self, run_id: str) -> tuple[Reply, ...]:
        """Read all that the model replied to a Run, in no order; what cannot be read is left out."""
        return tuple(readable(self._run(run_id) / "replies", Reply))

    def results(self, run_id: str) -> tuple[ToolResult, ...]:
        """Read what the tools of a Run answered, in the order of the calls' ids."""
        return tuple(sorted(readable(self._run(run_id) / "results", ToolResult), key=lambda result: result.id))

    def events(self) -> Iterator[Recorded]:
        """Read all events by position.

        Raises:
            StoreError: a file is damaged.
        """
        return self._log.events()

    def readable_events(self) -> list[Recorded]:
        """Read all events by position that are not damaged (behaviour H1)."""
        return self._log.readable_events()

    def _run(self, run_id: str) -> Path:
        return self._directory / "runs" / path_part(run_id)

    def _answered(self, run_id: str) -> dict[str, Path]:
        return {path.stem.replace("-", "/"): path for path in (self._run(run_id) / "replies").glob("*.json")}

    def _checkpoint_path(self, checkpoint_id: str) -> Path:
        return self._directory / "checkpoints" / f"{path_part(checkpoint_id)}.json"

    def _reply_path(self, run_id: str, request_id: str) -> Path:
        match = REQUEST_ID.fullmatch(request_id)
        name = "-".join(match.groups()) if match else identify("request", request_id)
        return self._run(run_id) / "replies" / f"{name}.json"

    async def _keep(self, path: Path, value: Frozen, indent: int | None = None, *, synced: bool = False) -> None:
        content = self._mask(value.to_json())
        if indent is not None:
            content = json.dumps(json.loads(content), indent=indent).encode("ascii") + b"\n"
        self._permit()
        write = partial(write_below, self._directory, path, content, synced=synced)
        await asyncio.get_running_loop().run_in_executor(self._writers, write)
        if not synced:
            self._writers.submit(sync, path)
