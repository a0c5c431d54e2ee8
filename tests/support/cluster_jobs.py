"""A job on Kubernetes while something happens to it, and what must be so afterwards."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support import cluster
from tests.support.cluster import Manifest, Namespace, runs
from tests.support.project import PYTHON, SECONDS, Project, Result, say, use

Event = dict[str, Any]
WORKING = "import time; open('count', 'a').write('once\\n'); time.sleep(6); open('count', 'a').write('done\\n')"


def command(program: str) -> tuple[str, dict[str, Any]]:
    """A call that runs a Python program."""
    arguments = {"args": ["-c", program], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return ("exec", {"command": PYTHON["kubernetes"], **arguments})


SLOW = {"one": [use(command(WORKING)), use(command(WORKING)), say("all done")]}
"""Replies of an Expert that works twice."""


def objects() -> Namespace:
    """The namespace of all projects, without our client."""
    return Namespace(cluster.shared_namespace())


@dataclass(frozen=True)
class Story:
    """How a job went: the result of the command, and all events in the records."""

    result: Result
    events: list[Event]

    @property
    def attempts(self) -> set[int]:
        """The numbers of all attempts that published an event."""
        return {event["attempt"] for event in self.events if "attempt" in event}


Disturb = Callable[[asyncio.StreamReader], Awaitable[object]]


async def disturbed(made: Project, until: str, disturb: Disturb, *options: str) -> Story:
    """Run the Expert `one`; disturb it after an event of the given type. No event may be missing or repeated.

    `disturb` may read what the command prints for the user.
    """
    process = await made.start("run", "--backend", made.backend, "--job-id", "j", *options, "one", "go")
    assert process.stdout is not None
    assert process.stderr is not None
    shown: list[bytes] = []
    async with asyncio.timeout(2 * SECONDS):
        while not shown or json.loads(shown[-1])["type"] != until:
            shown.append(await process.stdout.readline())
            assert shown[-1], (await process.communicate())[1].decode()
        await disturb(process.stderr)
        rest, stderr = await process.communicate()
    stdout = b"".join(shown) + rest
    log = await made.command("log", "--job", "j", "--json", "--take", "0")
    events: list[Event] = json.loads(log.stdout)["events"]
    assert [json.loads(line) for line in stdout.splitlines()] == events
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    numbers: dict[tuple[str, int], list[int]] = {}
    for event in events:
        if "seq" in event:
            numbers.setdefault((event["runId"], event["attempt"]), []).append(event["seq"])
    for each in numbers.values():
        assert each == list(range(1, len(each) + 1))
    return Story(Result(process.returncode or 0, stdout, stderr.decode()), events)


async def pods_of(made: Project) -> list[str]:
    """Name the Pods of a project's jobs of which something runs."""
    found = await objects().read("pods", f"--selector=perstack.ai/instance={made.instance}")
    return [each["metadata"]["name"] for each in found["items"] if runs(each)]


@asynccontextmanager
async def present(*manifests: Manifest, within: Namespace | None = None) -> AsyncIterator[None]:
    """Have these objects in a namespace for a while."""
    place = within or objects()
    await place.create(*manifests)
    try:
        yield
    finally:
        for manifest in manifests:
            await place.kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


@asynccontextmanager
async def seen(*kinds: str, within: Namespace | None = None) -> AsyncIterator[list[Manifest]]:
    """List every state of all objects of these kinds in a namespace, while the block runs."""
    states: list[Manifest] = []

    async def watch(kind: str) -> None:
        async with contextlib.aclosing((within or objects()).watch(kind)) as found:
            async for state in found:
                states.append(state)  # noqa: PERF401 - seen at once, not when the watch ends

    watches = [asyncio.ensure_future(watch(kind)) for kind in kinds]
    try:
        yield states
    finally:
        for each in watches:
            each.cancel()
        await asyncio.wait(watches)
