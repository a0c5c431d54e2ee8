"""Process 1 of a Sandbox: `python -I -m orchestrator.runtime [--state DIR] [--workspace DIR] [--packages DIR] …`.

Its exit code is one of `wire.exit_code`; stderr says why, its last line in one sentence. Past `--deadline`, in Unix
seconds, it ends whatever it does. `--ways` are those to skills that it makes ready while it waits. `--files` bounds how
many each process may have open, where nobody else does.

Its broker is behind the gate in the state directory, or where `--broker` says; with that go `--pin`, `--token` and
`--closed` and `--names` (see `network_way`). Its stderr is the file of `--stderr`, where there is one.
"""

import gc

gc.disable()  # Imports make hundreds of thousands of objects that live on: -40 % of the time to start.

import asyncio  # noqa: E402 - after gc.disable
import logging  # noqa: E402 - after gc.disable
import os  # noqa: E402 - after gc.disable
import resource  # noqa: E402 - after gc.disable
import signal  # noqa: E402 - after gc.disable
import sys  # noqa: E402 - after gc.disable
import threading  # noqa: E402 - after gc.disable
import time  # noqa: E402 - after gc.disable
from collections.abc import Mapping, Sequence  # noqa: E402 - after gc.disable
from contextlib import AbstractAsyncContextManager, suppress  # noqa: E402 - after gc.disable
from dataclasses import dataclass  # noqa: E402 - after gc.disable
from functools import partial  # noqa: E402 - after gc.disable
from itertools import count  # noqa: E402 - after gc.disable
from pathlib import Path  # noqa: E402 - after gc.disable

from orchestrator.errors import WireError  # noqa: E402 - after gc.disable
from orchestrator.runtime import facts, reap  # noqa: E402 - after gc.disable
from orchestrator.runtime.emit import Emitter, SpoolFullError, greet  # noqa: E402 - after gc.disable
from orchestrator.runtime.errors import NetworkOpenError, PackageError, SkillError  # noqa: E402 - after gc.disable
from orchestrator.runtime.gate import Gate  # noqa: E402 - after gc.disable
from orchestrator.runtime.link import BrokerGoneError, Link, attach  # noqa: E402 - after gc.disable
from orchestrator.runtime.surroundings import STANDARD_PATH, Surroundings  # noqa: E402 - after gc.disable
from orchestrator.runtime.warm import warm_up  # noqa: E402 - after gc.disable
from orchestrator.runtime.way import Way  # noqa: E402 - after gc.disable
from orchestrator.wire.exit_code import ExitCode  # noqa: E402 - after gc.disable
from orchestrator.wire.facts import Facts, shortfall  # noqa: E402 - after gc.disable
from orchestrator.wire.identity import identify  # noqa: E402 - after gc.disable
from orchestrator.wire.link import Assigned  # noqa: E402 - after gc.disable
from orchestrator.wire.run import Run  # noqa: E402 - after gc.disable
from orchestrator.wire.skill import SkillWay  # noqa: E402 - after gc.disable

_CLOSING_SECONDS = 5.0
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
_EXITS = {
    PackageError: ExitCode.NOT_INSTALLED,
    SkillError: ExitCode.NOT_INSTALLED,
    WireError: ExitCode.FAULT,
    SpoolFullError: ExitCode.SPOOL_FULL,
    BrokerGoneError: ExitCode.BROKER_GONE,
    NetworkOpenError: ExitCode.NETWORK_OPEN,
}
_USAGE = (
    "usage: python -I -m orchestrator.runtime [--state DIR] [--workspace DIR] [--packages DIR]"
    " [--deadline SECONDS] [--ways stdio,http] [--files N] [--stderr FILE]"
    " [--broker PORT@HOST,… --pin HEX --token FILE [--closed PORT@HOST,…;… [--names HOST,…]]]"
)
_OPTIONS = ("--deadline", "--ways", "--files", "--stderr", "--broker", "--pin", "--token", "--closed", "--names")
_DIRECTORIES = {"--state": "/run/perstack", "--workspace": "/workspace", "--packages": "/packages"}


def main(args: list[str]) -> int:
    """Work one Run; give the exit code."""
    reap.become_init()
    options = {**_DIRECTORIES, **dict.fromkeys(_OPTIONS, "")}
    if len(args) % 2 or not set(args[::2]) <= options.keys():
        return _fail(_USAGE, ExitCode.FAULT)
    options |= dict(zip(args[::2], args[1::2], strict=True))
    if stderr := options["--stderr"]:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), 2)
    if deadline := options["--deadline"]:
        _end_after(float(deadline) - time.time(), "past its deadline", ExitCode.DEADLINE)
    if files := options["--files"]:
        _bound_files(int(files))
    found = facts.find()
    if missing := shortfall(found.landlock):
        sys.stderr.write(f"{missing}\n")
    # From here on a stray print cannot forge an event: descriptor 1 is stderr.
    event_fd = os.dup(1)
    os.dup2(2, 1)
    gc.freeze()
    gc.enable()
    # What the MCP SDK logs with tracebacks is told in sentences where it is handled.
    logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
    try:
        place = _Place(_way(options), *(Path(options[name]) for name in _DIRECTORIES))
        ways = [SkillWay(way) for way in options["--ways"].split(",") if way]
        asyncio.run(_until_stopped(place, found, event_fd, ways))
    except asyncio.CancelledError:
        return _fail("stopped from outside", ExitCode.STOPPED)
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        return _explain(error)
    return ExitCode.DONE


@dataclass(frozen=True, slots=True)
class _Place:
    broker: Way
    state: Path
    workspace: Path
    packages: Path


def _way(options: Mapping[str, str]) -> Way:
    if not options["--broker"]:
        return Gate(Path(options["--state"]))
    from orchestrator.runtime import network_way  # noqa: PLC0415 - only a Sandbox with a network needs it

    told = (options[name] for name in ("--broker", "--pin", "--token", "--closed", "--names"))
    return network_way.parse(*told)


async def _until_stopped(place: _Place, found: Facts, event_fd: int, ways: Sequence[SkillWay]) -> None:
    running = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        running.add_signal_handler(signal.SIGTERM, partial(_stop, task))
    inodes = facts.find_inodes(place.state, place.workspace)
    async with attach(place.broker, found, inodes, meanwhile=partial(warm_up, ways)) as (assigned, link):
        await _do(assigned, link, place, event_fd)


async def _do(assigned: Assigned, link: Link, place: _Place, event_fd: int) -> None:
    path = os.environ.get("PATH", STANDARD_PATH)

    def open_forwarder(credential: str) -> AbstractAsyncContextManager[int]:
        from orchestrator.runtime import forward  # noqa: PLC0415 - most Runs have no way out

        return forward.listen(link.open_tunnel, credential)

    if assigned.install is not None:
        from orchestrator.runtime import install  # noqa: PLC0415 - no Run needs it

        certificates = {name: os.environ[name] for name in _CERTIFICATES if name in os.environ}
        where = install.Place(place.packages, place.state, path, certificates, open_forwarder)
        await install.work(assigned.install, where)
        return

    def surroundings(run: Run) -> Surroundings:
        parts = count()
        return Surroundings(
            workspace=place.workspace,
            state=place.state,
            emitter=Emitter(run, place.state, event_fd),
            part_id=lambda: identify(run.run_id, run.attempt, "part", next(parts)),
            open_forwarder=open_forwarder,
            lock_files=link.files_locked,
            path=path,
            packages=place.packages,
        )

    if assigned.run is not None:
        around = surroundings(assigned.run)
        greet(assigned.run, around.emitter)
        from orchestrator.runtime import loop  # noqa: PLC0415 - a cold Sandbox tells that it began before it is ready

        await loop.work(assigned.run, link, around, reap.end_everything_else)
    elif assigned.inspection is not None:
        from orchestrator.runtime import inspection  # noqa: PLC0415 - no Run needs it

        await inspection.inspect(assigned.inspection, link, surroundings(assigned.inspection))
    elif assigned.shell is not None:
        from orchestrator.runtime import shell  # noqa: PLC0415 - no Run waits for what a terminal needs

        await shell.work(assigned.shell, link, surroundings(assigned.shell.run))
        await reap.end_everything_else()


def _stop(task: "asyncio.Task[None]") -> None:
    # Whatever hangs while it closes must not outlast the engine's patience.
    _end_after(_CLOSING_SECONDS, "stopped from outside, and slow to close", ExitCode.STOPPED)
    task.cancel()


def _bound_files(most: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))


def _end_after(seconds: float, sentence: str, code: ExitCode) -> None:
    def end() -> None:
        with suppress(OSError):
            # Not through the stream, whose lock somebody may hold who hangs.
            os.write(2, f"{sentence}\n".encode())
        os._exit(code)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
    timer.daemon = True
    timer.start()


def _explain(error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = next((code for kind, code in _EXITS.items() if isinstance(error, kind)), None)
    if code is not None:
        return _fail(str(error), code)
    sys.excepthook(type(error), error, error.__traceback__)
    return _fail(
        f"the runtime failed ({type(error).__name__}: {error}); this is a fault of perstack-orch", ExitCode.FAULT
    )


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return code


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_code)  # Nothing is left to be told; tearing the interpreter down would only take time.
