"""Watching a machine while a job runs: what its processes, its engine and its temporary files show of it."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PAUSE_SECONDS = 0.05
_FILE_BYTES = 1 << 22


@dataclass
class Seen:
    """All that was seen: environments of processes, by number and argv; files by path; what the engine told."""

    processes: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    files: dict[Path, bytes] = field(default_factory=dict)
    engine: bytearray = field(default_factory=bytearray)
    containers: int = 0


@asynccontextmanager
async def watching(*prefixes: str, engine: bool) -> AsyncIterator[Seen]:
    """Watch until the block is left; `prefixes` begin the paths of files that are read whenever they are there."""
    seen, stop = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_look(seen, prefixes, stop))
        if engine:
            group.create_task(_listen(seen, stop))
        try:
            yield seen
        finally:
            stop.set()


async def _look(seen: Seen, prefixes: tuple[str, ...], stop: asyncio.Event) -> None:
    while not stop.is_set():
        for number, argv in _processes():
            # A process is another one after it became another program.
            if (number, argv) not in seen.processes:
                seen.processes[number, argv] = _content(Path("/proc", str(number), "environ"))
        for path in [file for prefix in prefixes for file in _files(prefix)]:
            seen.files[path] = _content(path)
        await asyncio.sleep(_PAUSE_SECONDS)


def _processes() -> Iterator[tuple[int, bytes]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            yield int(entry.name), _content(Path(entry, "cmdline"))


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


async def _listen(seen: Seen, stop: asyncio.Event) -> None:
    """Keep every event of the engine; look at each container that starts, and at all that it has written."""
    events = await asyncio.create_subprocess_exec(
        "docker", "events", "--format", "{{json .}}", stdout=asyncio.subprocess.PIPE, limit=1 << 22
    )
    assert events.stdout is not None
    try:
        while not stop.is_set():
            try:
                async with asyncio.timeout(0.2):
                    line = await events.stdout.readline()
            except TimeoutError:
                continue
            seen.engine += line
            event = json.loads(line)
            if event["Type"] == "container" and event["Action"] == "start":
                seen.containers += 1
                await _inspect(seen, event["id"])
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
