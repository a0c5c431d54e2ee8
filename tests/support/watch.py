"""Watching a machine while a job runs: what its processes, its engine and its temporary files show of it."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import engine
from tests.support.processes import command_lines

_SOON = 60
"""Seconds."""
_PAUSE_SECONDS = 0.05
_FILE_BYTES = 1 << 22


@dataclass
class Seen:
    """What was seen: environments of processes, by number and argv; files by path; what the engine reported."""

    processes: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    files: dict[Path, bytes] = field(default_factory=dict)
    engine: bytearray = field(default_factory=bytearray)
    containers: int = 0


@asynccontextmanager
async def watching(*prefixes: str, instance: str | None) -> AsyncIterator[Seen]:
    """Watch until the block is left; `prefixes` begin the paths of files that are read whenever they are there.

    With the `instance` of a store its containers are watched too, and each must be gone before this ends.
    """
    seen, stop = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_look(seen, prefixes, stop))
        listening = None if instance is None else group.create_task(_listen(seen, instance, stop))
        try:
            yield seen
        finally:
            stop.set()
            if listening is not None:
                async with asyncio.timeout(_SOON):
                    await listening


async def _look(seen: Seen, prefixes: tuple[str, ...], stop: asyncio.Event) -> None:
    while not stop.is_set():
        for number, argv in command_lines():
            # A process is another one after it became another program, and none while it does.
            if argv and number != os.getpid() and (number, argv) not in seen.processes:
                environ = _content(Path("/proc", str(number), "environ"))
                if _content(Path("/proc", str(number), "cmdline")) == argv:
                    seen.processes[number, argv] = environ
        for path in [file for prefix in prefixes for file in _files(prefix)]:
            seen.files[path] = _content(path)
        await asyncio.sleep(_PAUSE_SECONDS)


def _files(prefix: str) -> Iterator[Path]:
    above, start = os.path.split(prefix)
    for top in Path(above).glob(f"{start}*"):
        for directory, _, names in os.walk(top):
            yield from (Path(directory, name) for name in names)


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


async def _listen(seen: Seen, instance: str, stop: asyncio.Event) -> None:
    """Keep every event of an instance's containers; look at each that starts, and at all that it has written."""
    events = await asyncio.create_subprocess_exec(
        *("docker", "events", "--filter", f"label={engine.LABEL}={instance}", "--format", "{{json .}}"),
        stdout=asyncio.subprocess.PIPE, limit=1 << 22,
    )  # fmt: skip
    assert events.stdout is not None
    alive: set[str] = set()
    try:
        while alive or not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS):
                    line = await events.stdout.readline()
                seen.engine += line
                event = json.loads(line)
                if event["Action"] == "start":
                    seen.containers += 1
                    alive.add(event["id"])
                    await _inspect(seen, event["id"])
                elif event["Action"] == "destroy":
                    alive.discard(event["id"])
    finally:
        events.terminate()
        await events.wait()


async def _inspect(seen: Seen, container: str) -> None:
    for words in (("inspect", container), ("top", container, "-o", "pid,args"), ("diff", container)):
        told = await asyncio.create_subprocess_exec(
            "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        stdout, _ = await told.communicate()
        seen.engine += stdout
        if words[0] == "inspect" and stdout.strip() != b"[]":
            [found] = json.loads(stdout)
            upper = found["GraphDriver"]["Data"].get("UpperDir", "/nowhere/at-all")
            for path in (*_files(found["LogPath"]), *_files(upper)):
                seen.files[path] = _content(path)
