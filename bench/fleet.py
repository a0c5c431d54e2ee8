"""Thousands of Jobs in flight from one orchestrator, on nodes that do not exist (dev/kwok).

python -m bench.fleet COUNT writes what it took to stdout as JSON.
"""

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench import kwok
from bench.measure import cpu_seconds
from bench.section import Section, Target, rows
from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.backends.kubernetes import backend as kubernetes
from orchestrator.broker.server import Broker
from orchestrator.broker.tls_listener import open_tls_listener
from orchestrator.log import CallbackHandler, attach
from orchestrator.pool.launch import exit_of
from orchestrator.providers import ProviderSetting, open_provider
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import MIB, Backend, BrokerAddress, BrokerIngress, PodIdentity, Sandbox, SandboxSpec, User
from tests.support.broker_fixture import Books

JOBS, REPLACED, MEGABYTES, WRITES = 5000, 500, 400, 6
_NAME = "fleet"
_ROOT = Path("/fleet")
_HERE = ("127.0.0.1",)
_GOING = 100
"""Sandboxes that are removed at a time."""

_PATIENCE = 1800
"""Seconds that a Pod may take to run: all are created at once, and one scheduler places one after another."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Megabytes of the orchestrator: with no Job, half of them, all; with their links; after some were replaced.

    `up` are the seconds until all ran, `cpu` what the orchestrator used until then, `heard` the seconds until a line
    had come from every Sandbox, `removed` those until all were gone. `asked` counts what it asked the API server for in
    all `seconds`, by verb and kind, `watches` the watches of Pods that were open at once.
    """

    jobs: int
    replaced: int
    megabytes: tuple[int, int, int, int, int]
    up: float
    cpu: float
    heard: float
    removed: float
    seconds: float
    asked: dict[str, int]
    watches: int

    @property
    def writes(self) -> float:
        """To the API, for each Job."""
        return sum(self.asked.get(f"{verb} jobs", 0) for verb in ("create", "patch", "delete")) / (
            self.jobs + self.replaced
        )


def fleet() -> Section:
    """Measure."""
    with kwok.empty(_NAME):
        command = [sys.executable, "-m", "bench.fleet", str(JOBS), str(REPLACED)]
        found = Fleet(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    counted = ("list jobs", "watch jobs", "list pods", "watch pods", "list networkpolicies", "list events")
    states = ("no Job", f"{found.jobs // 2} Jobs", f"{found.jobs} Jobs", "with their links to the broker")
    memory = zip((*states, f"{found.replaced} of them replaced"), found.megabytes, strict=True)
    in_flight = found.megabytes[2]
    text = (
        f"{found.jobs} Jobs at once from one orchestrator, their logs followed, on nodes that do not exist: all "
        f"ran after {found.up:.0f} s, for {found.cpu * 1000 / found.jobs:.0f} ms of its CPU time each; a line that "
        f"each wrote had come from all {found.heard:.1f} s later; {found.replaced} were replaced; all were removed in "
        f"{found.removed:.0f} s.\n\n"
        + rows(["in flight", "memory of the orchestrator"], *([what, f"{megabytes} MB"] for what, megabytes in memory))
        + "\n\n"
        + rows(
            [f"asked of the API server in {found.seconds:.0f} s", "times"],
            *([each, found.asked.get(each, 0)] for each in counted),
        )
    )
    return Section(
        "A fleet",
        text,
        (
            Target(
                f"memory with {JOBS} Jobs in flight", f"≤ {MEGABYTES} MB", f"{in_flight} MB", in_flight <= MEGABYTES
            ),
            Target("watches of Pods for all of them", "1", f"{found.watches}", found.watches == 1),
            Target("writes to the API for each of them", f"≤ {WRITES}", f"{found.writes:.1f}", found.writes <= WRITES),
        ),
    )


@dataclass(slots=True)
class _Flight:
    """What is in flight: Sandboxes that run, that reached the broker, lines that they told, and what ends each.

    Nothing runs in their Pods, so each one's link to the broker is opened from another process, once it is `welcome`.
    """

    backend: Backend
    broker: Broker
    guests: asyncio.StreamWriter
    running: int = 0
    linked: int = 0
    told: int = 0
    gone: int = 0
    welcome: asyncio.Event = field(default_factory=asyncio.Event)
    over: dict[int, asyncio.Event] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def fly(self, number: int) -> None:
        """Launch a Sandbox, admit it, read its output and wait for its end as a job does, until it is over."""
        over = self.over[number] = asyncio.Event()
        spec = _spec(number, self.broker.address)
        async with (
            self.broker.listen(spec.name, spec.state, spec.user) as session,
            self.backend.launch(spec) as sandbox,
        ):
            reading = asyncio.ensure_future(self._read(sandbox))
            ending = asyncio.ensure_future(exit_of(sandbox))
            await sandbox.started()
            self.running += 1
            self._changed.set()
            await self.welcome.wait()
            self.guests.write(f"{spec.name}\n".encode())
            await session.ready()
            self.linked += 1
            self._changed.set()
            await over.wait()
            for task in (reading, ending):
                task.cancel()
            await asyncio.wait((reading, ending))
        self.gone += 1
        self._changed.set()

    async def until(self, *, running: int = 0, linked: int = 0, told: int = 0, gone: int = 0) -> float:
        """Wait until so many ran, had a link, told a line, are gone; give the seconds that took."""
        began = time.monotonic()
        while self.running < running or self.linked < linked or self.told < told or self.gone < gone:
            await self._changed.wait()
            self._changed.clear()
        return time.monotonic() - began

    async def _read(self, sandbox: Sandbox) -> None:
        async for _ in sandbox.lines():
            self.told += 1
            self._changed.set()


def _spec(number: int, broker: BrokerAddress | None) -> SandboxSpec:
    name, deadline = naming.sandbox_name(_NAME, number, _NAME), int(time.time()) + 3600
    return SandboxSpec(
        name=name,
        image="none",
        workspace=_ROOT / "ws",
        state=_ROOT / "state" / name,
        user=User(65532, 65532),
        deadline=deadline,
        labels=naming.labels(_NAME, sandbox=name, instance=_NAME, deadline=deadline),
        broker=broker,
    )


@asynccontextmanager
async def _broker(directory: Path) -> AsyncIterator[tuple[Broker, asyncio.StreamWriter]]:
    """Start a broker that accepts every token, and a process that connects under each name written to it."""

    async def identify(token: str) -> PodIdentity:
        return PodIdentity(token, token, frozenset())

    ledger, entrance = Books().run_records, BrokerIngress(_HERE, 0, 0, identify, enforced=False)
    provider = partial(open_provider, ProviderSetting("scripted", {}, {}, directory))
    async with (
        open_tls_listener(entrance, b"k" * 32, directory / "ports") as listener,
        Broker(provider, ledger, lambda _: None, listener=listener) as broker,
    ):
        guests = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.guests", f"{listener.address.port}"), stdin=asyncio.subprocess.PIPE
        )
        if guests.stdin is None:
            sys.exit("no pipe")
        try:
            yield broker, guests.stdin
        finally:
            guests.kill()
            await guests.wait()


async def _fleet(directory: Path, count: int, replaced: int) -> Fleet:
    began = time.monotonic()
    setting = ClusterSetting(_NAME, Claim(_NAME, _ROOT), _HERE, start_seconds=_PATIENCE)
    environ = {"KUBECONFIG": str(kwok.KUBECONFIG)}
    async with (
        kubernetes.connect(environ, setting, "none") as backend,
        _broker(directory) as (broker, guests),
        asyncio.TaskGroup() as tasks,
    ):
        await backend.check()
        flight = _Flight(backend, broker, guests)
        none = _megabytes()

        def launch(first: int, past: int) -> None:
            for number in range(first, past):
                tasks.create_task(flight.fly(number))

        launch(0, count // 2)
        up = await flight.until(running=count // 2)
        half = _megabytes()
        launch(count // 2, count)
        up += await flight.until(running=count)
        cpu = cpu_seconds()
        kwok.tell("told to all")
        heard = await flight.until(told=count)
        full = _megabytes()
        flight.welcome.set()
        await flight.until(linked=count)
        linked = _megabytes()
        for number in range(replaced):
            flight.over[number].set()
            launch(count + number, count + number + 1)
        await flight.until(linked=count + replaced, told=count + replaced)
        after = _megabytes()
        removing = time.monotonic()
        for number in range(replaced, count + replaced):
            flight.over[number].set()
            # The cluster's garbage collector takes Pods away after their Jobs, and a busy one takes its time.
            await flight.until(gone=number - _GOING)
    seconds = time.monotonic() - began
    return Fleet(
        jobs=count,
        replaced=replaced,
        megabytes=(none, half, full, linked, after),
        up=up,
        cpu=cpu,
        heard=heard,
        removed=time.monotonic() - removing,
        seconds=seconds,
        asked=kwok.asked(),
        watches=kwok.at_once("watch", "pods"),
    )


def _note(_: int, said: str) -> None:
    sys.stderr.write(f"{said[:200]}\n")


def _megabytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // MIB


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-") as root, attach(CallbackHandler(_note)):
        told = asyncio.run(_fleet(Path(root), int(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(json.dumps(asdict(told)))
