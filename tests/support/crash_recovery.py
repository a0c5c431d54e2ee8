"""A job that is killed at some moment and then resumed: what must hold afterwards, whatever the moment was."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.wire.event import TERMINAL_TYPES
from tests.support.crashing import KILLED
from tests.support.leftovers import left_behind
from tests.support.project import COMMAND, PYTHON, SECONDS, TEAM, Project, ask, say, use

ROOT = Path(__file__).parents[2]
JOB = "j"
_COUNT = "import os; os.write(os.open('count', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), b'once\\n')"

Event = dict[str, Any]


@dataclass(frozen=True)
class Killed:
    """What the killed orchestrator and all after it printed, and how often one was killed."""

    shown: list[Event]
    kills: int


def project(directory: Path, backend: str) -> Project:
    """A coordinator with two delegates at once; each of them counts in the workspace that it did its work."""
    arguments = {"command": PYTHON[backend], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    count = ("exec", {**arguments, "args": ["-c", _COUNT]})
    replies = {
        "boss": [use(ask("left", "go"), ask("right", "go"), text="both"), say("both done")],
        "left": [use(count, text="working"), say("left done")],
        "right": [use(count, text="working"), use(("attemptCompletion", {})), say("right done")],
    }
    return Project.make(directory, backend, TEAM, replies)


async def crashed(made: Project, step: int) -> Killed:
    """Kill the orchestrator at a durable step, and resume the job until it is done."""
    crashing = (sys.executable, "-m", "tests.support.crashing", str(step))
    process = await _process(made, crashing, *_run(made))
    async with asyncio.timeout(SECONDS):
        stdout, stderr = await process.communicate()
    shown = _events(stdout)
    if process.returncode == 0:
        return Killed(shown, 0)
    assert process.returncode == KILLED, stderr.decode()
    return Killed(shown + await _taken_up(made), 1)


async def steps(made: Project) -> int:
    """Count the durable steps of the job, undisturbed."""
    process = await _process(made, (sys.executable, "-m", "tests.support.crashing", "0"), *_run(made))
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return int(stderr.splitlines()[-1])


async def killed_after(made: Project, seconds: Sequence[float]) -> Killed:
    """Kill the orchestrator after each of `seconds`; resume the job in between, and at last to its end."""
    shown: list[Event] = []
    arguments = _run(made)
    for number, wait in enumerate(seconds):
        process = await _process(made, COMMAND, *arguments)
        reading = asyncio.ensure_future(process.communicate())
        done, _ = await asyncio.wait([reading], timeout=wait)
        if not done:
            process.kill()
        stdout, stderr = await reading
        shown += _events(stdout)
        if done:
            assert process.returncode == 0, stderr.decode()
            return Killed(shown, number)
        arguments = _resume(made) if _is_known(made) else _run(made)
    return Killed(shown + await _taken_up(made), len(seconds))


async def check(made: Project, killed: Killed, *, engine_answers: bool) -> list[Event]:
    """Check that nothing is lost, repeated, done twice, or left behind; return the events of the job."""
    log = await made.command("log", "--job", JOB, "--json", "--take", "0")
    found = json.loads(log.stdout)
    events: list[Event] = found["events"]
    assert found["job"]["status"] == "completed"
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    _each_once(events)
    shown = [event["position"] for event in killed.shown]
    # Events that were stored when it was killed, and not printed yet, are in the records only.
    assert shown == sorted(set(shown)), "an event was shown twice"
    assert [event for event in events if event["position"] in set(shown)] == killed.shown
    assert (made.workspace / "count").read_bytes() == b"once\n" * 2, "a tool's work was done twice, or not at all"
    assert events[-1]["text"] == "both done"
    left = left_behind(made.directory, engine_answers=engine_answers, in_cluster=made.in_cluster)
    # The message lists them for the soak too, which runs without pytest.
    assert left == set(), f"left behind: {sorted(left)}"
    return events


def _each_once(events: Sequence[Event]) -> None:
    by_attempt: dict[tuple[str, int], list[int]] = {}
    for event in events:
        if "seq" in event:
            by_attempt.setdefault((event["runId"], event["attempt"]), []).append(event["seq"])
    for numbers in by_attempt.values():
        assert numbers == list(range(1, len(numbers) + 1)), numbers
    ends = Counter(event["runId"] for event in events if event["type"] in TERMINAL_TYPES)
    assert ends == Counter(dict.fromkeys({event["runId"] for event in events if "runId" in event}, 1)), ends


async def _taken_up(made: Project) -> list[Event]:
    """Resume the job, or start it again if it was killed before it had a record."""
    arguments = _resume(made) if _is_known(made) else _run(made)
    process = await _process(made, COMMAND, *arguments)
    async with asyncio.timeout(SECONDS):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return _events(stdout)


def _is_known(made: Project) -> bool:
    return (made.store / "jobs" / JOB / "job.json").exists()


def _run(made: Project) -> tuple[str, ...]:
    return ("run", "--backend", made.backend, "--job-id", JOB, "boss", "go")


def _resume(made: Project) -> tuple[str, ...]:
    return ("resume", "--backend", made.backend, JOB)


async def _process(made: Project, command: Sequence[str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        cwd=made.directory,
        env=made.environment | {"PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _events(stdout: bytes) -> list[Event]:
    # The last line may be torn: the process was killed while it wrote.
    return [json.loads(line) for line in stdout.split(b"\n")[:-1]]
