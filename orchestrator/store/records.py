"""The records of one job."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from orchestrator.errors import StoreError
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.store.event_log import EventLog
from orchestrator.store.files import load_or_create_secret, path_part, read_value, readable, sync, write_below
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.event import TERMINAL_TYPES, Event
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import REQUEST_ID, Reply, calls_made
from orchestrator.wire.identity import AttemptRef, identify
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.line import EventLine, decode
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import RunSetting, Start
from orchestrator.wire.usage import Usage
from orchestrator.workspace.manifest import WorkspaceCopy


def last_of_each_run(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Return the last checkpoint of each Run, by run id."""
    last: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        other = last.get(checkpoint.run_id)
        if other is None or _reached(checkpoint) > _reached(other):
            last[checkpoint.run_id] = checkpoint
    return last


def _reached(checkpoint: Checkpoint) -> tuple[int, bool]:
    """Order checkpoints by step; within one step, the one that ends the Run is last."""
    return checkpoint.step_number, checkpoint.is_stopped


_WRITERS = 4
_COPY = "workspace.json"


class JobRecords:
    """The records of one job, held by one orchestrator.

    When `keep_result` or `keep_reply` returns, the value is synced, because its effect is visible outside already.
    Other values survive the end of this process and are synced soon after; after a power loss they follow from the
    synced ones.
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
        # A separate thread pool: leaving the block waits for writes that a cancelled caller started.
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="store")
        self._damage: list[StoreError] = []
        # A new job has no earlier work; for an opened job it is read once.
        found = readable(self._directory / "checkpoints", Checkpoint, damaged=self._damage.append)
        self._earlier = {run: checkpoint.id for run, checkpoint in last_of_each_run(found).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writers.shutdown()

    async def append(self, event: Event, line: bytes | None = None) -> EventLine:
        """Write an event and give it its position. `line` is the event as received, without the newline.

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
        """Write the start of the coordinator's work, once for each request of the user.

        Raises:
            StoreError: the disk refuses, or an earlier start is damaged.
        """
        await self._keep(self._directory / "starts" / f"{len(self.starts()) + 1:06}.json", start)

    async def keep_setting(self, setting: RunSetting, sandbox: int | None = None) -> None:
        """Write the settings of a Run, and the number of the `sandbox` that is about to receive it.

        In an existing record only that number and `updated_at` change.

        Raises:
            StoreError: the disk refuses, or the existing record is damaged.
        """
        path = self._run(setting.run_id) / "run-setting.json"
        if path.exists():
            setting = read_value(path, RunSetting).with_(updated_at=setting.updated_at)
        if sandbox is not None:
            setting = setting.with_(sandboxes=(*self.sandboxes(setting.run_id), sandbox))
        await self._keep(path, setting)

    async def keep_copy(self, copy: WorkspaceCopy | None) -> None:
        """Write the record of the workspace's copy, or remove it once all is copied back.

        Names of files stay as they are, even if they contain a secret: the files are found by them.

        Raises:
            StoreError: the disk refuses.
        """
        self._permit()
        path, loop = self._directory / _COPY, asyncio.get_running_loop()
        if copy is None:
            await loop.run_in_executor(self._writers, partial(path.unlink, missing_ok=True))
        else:
            write = partial(write_below, self._directory, path, copy.to_json(), synced=True)
            await loop.run_in_executor(self._writers, write)

    def copy(self) -> WorkspaceCopy | None:
        """Read the record of the workspace's copy; None if the workspace is not in a copy.

        Raises:
            StoreError: the record is damaged.
        """
        path = self._directory / _COPY
        return read_value(path, WorkspaceCopy) if path.exists() else None

    async def key(self) -> bytes:
        """Read the secret that the job's other secrets derive from; without a given key, the first call creates it.

        Raises:
            StoreError: the disk refuses.
        """
        if self._key is not None:
            return self._key
        path = self._directory / "key"
        return await asyncio.get_running_loop().run_in_executor(self._writers, load_or_create_secret, path, KEY_BYTES)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._checkpoint_path(checkpoint.id), checkpoint)

    async def keep_result(self, run_id: str, result: ToolResult) -> None:
        """Write the result of a tool call of a Run.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._run(run_id) / "results" / f"{identify(result.id)}.json", result, synced=True)

    async def keep_reply(self, run_id: str, request_id: str, reply: Reply) -> None:
        """Write the model's reply to a request of a Run.

        Raises:
            StoreError: the disk refuses.
        """
        await self._keep(self._reply_path(run_id, request_id), reply, synced=True)

    async def reply(self, run_id: str, request_id: str) -> Reply | None:
        """Read the model's reply to a request, None if no reply is recorded.

        Raises:
            StoreError: the record is damaged.
        """
        path = self._reply_path(run_id, request_id)
        return read_value(path, Reply) if path.exists() else None

    def job(self) -> JobRecord:
        """Read `job.json`.

        Raises:
            StoreError: it is missing or damaged.
        """
        return read_value(self._directory / "job.json", JobRecord)

    def starts(self) -> tuple[Start, ...]:
        """Read the starts of the coordinator's work, in the order of the user's requests.

        Raises:
            StoreError: a record is damaged.
        """
        return tuple(read_value(path, Start) for path in sorted((self._directory / "starts").glob("*.json")))

    def earlier(self, run_id: str) -> Checkpoint | None:
        """Read the last checkpoint that a Run had when these records were opened.

        Raises:
            StoreError: it is damaged.
        """
        checkpoint_id = self._earlier.get(run_id)
        return None if checkpoint_id is None else self.checkpoint(checkpoint_id)

    def check_checkpoints(self) -> None:
        """Check that `earlier` returns the latest checkpoint of each Run: a damaged one could be later.

        Raises:
            StoreError: a checkpoint was damaged when these records were opened.
        """
        for error in self._damage:
            raise error

    def calls_made(self, run_id: str) -> int:
        """The number of model calls of a Run, up to the last one with a reply."""
        return calls_made(self._reply_paths(run_id))

    def generations(self, last: Checkpoint) -> int:
        """Count the model calls of a conversation up to the end of the Run that wrote `last`.

        Raises:
            StoreError: the Run's record is damaged.
        """
        return self.setting(last.run_id).generations + max(self.calls_made(last.run_id), last.generations)

    def sandboxes(self, run_id: str) -> tuple[int, ...]:
        """Read the numbers of the Sandboxes that received a Run, one for each attempt; 0 if unknown.

        A number is unknown if the machine lost power after events of the attempt were stored, but before its number
        was.

        Raises:
            StoreError: the Run's record is damaged.
        """
        path = self._run(run_id) / "run-setting.json"
        known = read_value(path, RunSetting).sandboxes if path.exists() else ()
        return known + (0,) * (self._log.attempts(run_id) - len(known))

    def recorded_usage(self, run_id: str) -> dict[str, Usage]:
        """Read the usage of each model call of a Run with a reply, by request id; damaged replies are left out."""
        found: dict[str, Usage] = {}
        for request_id, path in self._reply_paths(run_id).items():
            with suppress(StoreError):
                found[request_id] = read_value(path, Reply).usage
        return found

    def last_seq(self, attempt: AttemptRef) -> int:
        """The highest `seq` of an attempt that was stored when these records were opened; 0 if none was."""
        return self._log.last(attempt.run_id, attempt.attempt).seq

    def has_terminal_event(self, run_id: str, attempts: int) -> bool:
        """Whether the terminal event of a Run was stored when these records were opened."""
        last = {self._log.last(run_id, attempt).type for attempt in range(1, attempts + 1)}
        return not TERMINAL_TYPES.isdisjoint(last | self._log.host_event_types(run_id))

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            StoreError: the id is unknown, or the checkpoint is damaged.
        """
        path = self._checkpoint_path(checkpoint_id)
        if not path.exists():
            job = self._directory.name
            message = f"checkpoint not found: {checkpoint_id!r} is not one of job {job!r}; see `log --job {job} --json`"
            raise StoreError(message)
        return read_value(path, Checkpoint)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Read all checkpoints by step; unreadable ones are left out."""
        found = readable(self._directory / "checkpoints", Checkpoint)
        return tuple(sorted(found, key=lambda checkpoint: (checkpoint.step_number, checkpoint.id)))

    def setting(self, run_id: str) -> RunSetting:
        """Read the settings of a Run.

        Raises:
            StoreError: the Run is unknown, or the record is damaged.
        """
        return read_value(self._run(run_id) / "run-setting.json", RunSetting)

    def settings(self) -> tuple[RunSetting, ...]:
        """Read the settings of all Runs, last updated first; unreadable ones are left out."""
        found = readable(self._directory / "runs", RunSetting, "*/run-setting.json")
        return tuple(sorted(found, key=lambda setting: (-setting.updated_at, setting.run_id)))

    def replies(self, run_id: str) -> tuple[Reply, ...]:
        """Read all replies of the model in a Run, in no order; unreadable ones are left out."""
        return tuple(readable(self._run(run_id) / "replies", Reply))

    def results(self, run_id: str) -> tuple[ToolResult, ...]:
        """Read the results of a Run's tool calls, in the order of the calls' ids; unreadable ones are left out."""
        return tuple(sorted(readable(self._run(run_id) / "results", ToolResult), key=lambda result: result.id))

    def events(self) -> Iterator[EventLine]:
        """Read all events by position.

        Raises:
            StoreError: a file is damaged.
        """
        return self._log.events()

    def readable_events(self) -> list[EventLine]:
        """Read all undamaged events by position."""
        return self._log.readable_events()

    def _run(self, run_id: str) -> Path:
        return self._directory / "runs" / path_part(run_id)

    def _reply_paths(self, run_id: str) -> dict[str, Path]:
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
