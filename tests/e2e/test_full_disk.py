"""No room on the disk of the event spools, or on that of the records: real file systems, small in bytes or in files."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.wire.event import CompleteRun
from tests.support.project import COMMAND, ONE, SECONDS, Project, Result, say, use
from tests.support.traces import outside_directory

ROOT = Path(__file__).parents[2]
TEXT = "x" * 30_000
REPLIES = {"one": [*(use(("writeTextFile", {"path": "x", "text": TEXT})) for _ in range(12)), say("done")]}


@pytest.fixture
def made() -> Iterator[Project]:
    """A project outside /tmp, over which one of the tests mounts something."""
    with outside_directory() as directory:
        yield Project.make(directory / "project", "process", ONE, REPLIES)


async def _run(made: Project, mount: str, limit: str, *arguments: str) -> Result:
    """Run the command where `mount` is a small, separate file system; its content is kept for the next time.

    The command itself stays in its place, also where the mount hides the checkout or the interpreter.
    """
    kept, before = f"{made.directory}/../kept", f"{made.directory}/../before"
    hidden = [path for path in {str(ROOT), sys.prefix, sys.base_prefix} if Path(path).is_relative_to(mount)]
    shown = "".join(f' && mkdir -p "{path}" && mount --rbind "{before}{path}" "{path}"' for path in hidden)
    taken_away = "".join(f'; umount --lazy "{path}"' for path in reversed(hidden))
    script = (
        f'mkdir -p "{kept}" "{before}" "{mount}" && mount --rbind / "{before}"'
        f' && mount -t tmpfs -o {limit} tmpfs "{mount}"{shown}'
        f' && cp -a "{kept}/." "{mount}" && "$@"; code=$?{taken_away}; cp -a "{mount}/." "{kept}"; exit $code'
    )
    unshare = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    process = await asyncio.create_subprocess_exec(
        *unshare, "sh", "-c", script, "sh", *COMMAND, *arguments,
        cwd=made.directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(SECONDS):
        stdout, stderr = await process.communicate()
    return Result(process.returncode or 0, stdout, stderr.decode())


async def test_no_room_for_the_spool(made: Project) -> None:
    """The Run ends with an error that names the full disk and the remedy; all earlier events are there."""
    result = await _run(made, "/tmp", "size=400k", "run", "--backend", "process", "--job-id", "j", "one", "go")
    assert result.code == 1, result.stderr
    assert "the disk that holds the event spool is full; free space" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.types[-1] == "stopRunByError"
    assert [event.position for event in result.events] == list(range(1, len(result.events) + 1))
    stored = json.loads((await made.command("log", "--json", "--take", "0")).stdout)["events"]
    assert [json.loads(line) for line in result.stdout.splitlines()] == stored


async def test_no_room_for_the_records(made: Project) -> None:
    """The error names the file and the remedy, exit 3; with room the job continues, no event is lost or repeated."""
    store = str(made.store)
    full = await _run(made, store, "size=600k", "run", "--backend", "process", "--job-id", "j", "one", "go")
    assert full.code == 3, full.stderr
    assert "no space left to write" in full.stderr
    assert "--storage" in full.stderr
    assert "Traceback" not in full.stderr
    last = full.events[-1].position
    after = await _run(made, store, "size=30m", "resume", "--backend", "process", "--after", str(last), "j")
    assert after.code == 0, after.stderr
    positions = [event.position for event in (*full.events, *after.events)]
    assert positions == list(range(1, len(positions) + 1))
    assert [event.text for event in after.of(CompleteRun)] == ["done"]


@pytest.mark.parametrize("files", [24, 30, 36])
async def test_no_room_for_the_record_of_how_it_ended_either(made: Project, files: int) -> None:
    """On a disk that stays full nothing can be written: the same error, and the command does not wait for more."""
    store = str(made.store)
    full = await _run(made, store, f"nr_inodes={files}", "run", "--backend", "process", "--job-id", "j", "one", "go")
    assert full.code == 3, full.stderr
    assert full.stderr.count("no space left to write") == 1
    assert "Traceback" not in full.stderr
    after = await _run(made, store, "size=30m", "resume", "--backend", "process", "j")
    assert after.code == 0, after.stderr
    assert [event.text for event in after.of(CompleteRun)] == ["done"]
