"""Attacks on what a Sandbox may use: memory, processes, files, disk. A bomb costs only its command or its Run."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB
from orchestrator.wire.event import CompleteRun, ResolveToolResults
from orchestrator.wire.message import TextPart
from tests.support.attacks import nothing_left
from tests.support.embedded import running
from tests.support.project import ONE, PYTHON, Project, say, use

pytestmark = [pytest.mark.docker]

LIMITS = DEFAULT_LIMITS.with_(memory=160 * MIB, tmp=16 * MIB, pids=48, files=256)

FORKS = """
import os, signal
made = 0
try:
    while made < {most}:
        if os.fork() == 0: {quiet}signal.pause()
        made += 1
except OSError as error: print(made, error.strerror)
else: print("all")
"""
ALL_OF = """
size, block = 0, b"x" * (1 << 20)
try:
    with open({path!r}, "wb", buffering=0) as file:
        while size < {megabytes}: size += file.write(block) >> 20
except OSError as error: print(size, error.strerror)
else: print("all")
finally:
    import os, contextlib
    with contextlib.suppress(OSError): os.unlink({path!r})
"""
OPEN = """
import os
kept = []
try:
    while len(kept) < {most}: kept.append(os.open("/dev/null", 0))
except OSError as error: print(len(kept), error.strerror)
else: print("all")
"""
MEMORY = "x = bytearray({} << 20); print('all')"
BOMBS: Mapping[str, tuple[str, str, str]] = {
    "memory": (MEMORY.format(1024), "was ended by signal 9", MEMORY.format(32)),
    "memory in shared files": (
        ALL_OF.format(path="/dev/shm/bomb", megabytes=1024),
        "No space left on device",
        ALL_OF.format(path="/dev/shm/bomb", megabytes=8),
    ),
    "processes": (
        FORKS.format(most=1000, quiet=""),
        "Resource temporarily unavailable",
        FORKS.format(most=8, quiet=""),
    ),
    "open files": (OPEN.format(most=1000), "Too many open files", OPEN.format(most=100)),
    "disk in /tmp": (
        ALL_OF.format(path="/tmp/bomb", megabytes=1024),
        "No space left on device",
        ALL_OF.format(path="/tmp/bomb", megabytes=8),
    ),
    "disk in the image": (
        ALL_OF.format(path="/var/tmp/bomb", megabytes=1024),
        "Permission denied|Read-only file system",
        ALL_OF.format(path="/workspace/bomb", megabytes=8),
    ),
}
"""Each with what stops it, and a small one that is allowed."""
# Its processes leave their group, so that they do not end with the command.
LEFT = FORKS.format(most=1000, quiet="os.setsid(); ")


def _run(code: str) -> tuple[str, dict[str, Any]]:
    args = ["-I", "-c", code]
    return "exec", {"command": PYTHON["docker"], "args": args, "env": {}, "cwd": ".", "stdout": True, "stderr": True}


@dataclass(frozen=True)
class Tried:
    """The result of each command, and of the Run."""

    results: list[str]
    ended: list[str]
    status: str


async def _tried(made: Project) -> Tried:
    async with running(made, limits=LIMITS) as events:
        seen = [recorded.event async for recorded in events]
    resolved = [event for event in seen if isinstance(event, ResolveToolResults)]
    parts = [part for event in resolved for each in event.tool_results for part in each.result]
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    assert events.outcome is not None
    return Tried(texts, [event.text for event in seen if isinstance(event, CompleteRun)], events.outcome.status)


@pytest.fixture(scope="module")
def bombed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, str]]]:
    """All bombs in one Run, a small one before each."""
    root = tmp_path_factory.mktemp("bombs")
    replies = [use(_run(code)) for bomb, _, small in BOMBS.values() for code in (small, bomb)]
    made = Project.make(root / "project", "docker", ONE, {"one": [*replies, say("still here")]})
    tried = asyncio.run(_tried(made))
    assert tried.ended == ["still here"]
    pairs = zip(tried.results[::2], tried.results[1::2], strict=True)
    yield dict(zip(BOMBS, pairs, strict=True))
    nothing_left(root)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_its_command_alone(bombed: Mapping[str, tuple[str, str]], name: str) -> None:
    """Its own limit stops it, the Run continues, and a small one is allowed."""
    small, large = bombed[name]
    assert json.loads(small) == {"output": "all\n"}
    assert re.search(BOMBS[name][1], large), large


async def test_processes_that_leave_their_command_end_with_the_run(tmp_path: Path) -> None:
    """They may take all that the Sandbox has from later commands; the Run still ends, and they end with it."""
    replies = {"one": [use(_run(LEFT)), use(_run("print('more')")), say("still here")]}
    tried = await _tried(Project.make(tmp_path / "project", "docker", ONE, replies))
    assert "Resource temporarily unavailable" in tried.results[0]
    assert (tried.ended, tried.status) == (["still here"], "completed"), tried
