"""The engine's stream of a Sandbox's output, cut at random bytes: what is collected is what was spooled."""

import asyncio
import os
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.projects import scratch
from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import parse_endpoint
from orchestrator.backends.docker.sandbox import DockerSandbox
from orchestrator.events.collector import EventSequencer, collect
from orchestrator.events.spool import Spool
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.wire.identity import AttemptRef
from tests.support.backend_kinds import docker_place
from tests.support.chaos_proxy import Chaos, chaos_proxy

LINE_BYTES = 64 * 1024
EVENTS = 200
_PATIENCE_SECONDS = 30
_TELL = """
import os, sys
with open("/run/perstack/events.jsonl", "wb") as spool:
    for number in range(1, {events} + 1):
        line = b'{{"type":"streamRunResult","id":"e%d","timestamp":1,"jobId":"j","runId":"r","attempt":1,"seq":%d,' % (
            number, number) + b'"expertKey":"x","stepNumber":1,"delta":"' + b"x" * (number * 37 % 900) + b'"}}\\n'
        spool.write(line)
        spool.flush()
        os.write(1, line)
"""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How often the stream was cut, of how many events in all, and how many were missing or came twice."""

    cuts: int
    events: int
    lost: int
    repeated: int


async def cuts(count: int, chance: random.Random) -> Cuts:
    """Cut the stream of one Sandbox `count` times, each time somewhere else."""
    lost = repeated = 0
    with scratch() as root:
        async with docker_place(root) as place:
            spec = place.spec()
            async with place.connect(_TELL.format(events=EVENTS)) as backend, backend.launch(spec) as sandbox:
                size = sum([len(line) + 9 async for line in sandbox.lines()])
                await sandbox.wait()
                spooled = (spec.state / "events.jsonl").read_bytes().splitlines()
                async with chaos_proxy(root) as proxy:
                    proxy.chaos = Chaos(lambda target: "/logs" in target, cut=lambda: chance.randrange(size))
                    for _ in range(count):
                        engine = DockerClient(parse_endpoint(proxy.address, "the proxy"))
                        collected = await _collected(engine, sandbox.name, spec.state / "events.jsonl")
                        lost += len(set(spooled) - set(collected))
                        repeated += len(collected) - len(set(collected))
    return Cuts(count, count * EVENTS, lost, repeated)


async def _collected(engine: DockerClient, name: str, spool: Path) -> list[bytes]:
    sandbox = DockerSandbox(engine, name, LINE_BYTES, name)
    fd = os.open(spool, os.O_RDONLY)
    over = asyncio.Event()

    async def ended() -> Exit:
        await over.wait()
        return Exit(0, Reason.COMPLETED)

    try:
        sequence = EventSequencer(AttemptRef("j", "r", 1))
        async with collect(sandbox.lines(), ended, Spool(fd, LINE_BYTES), sequence) as collector:
            found: list[bytes] = []
            # What was lost never comes: then it is counted.
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    async for collected in collector:
                        found.append(collected.line)
                        if len(found) == EVENTS:
                            over.set()
            return found
    finally:
        os.close(fd)
