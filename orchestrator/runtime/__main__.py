"""Process 1 of a Sandbox: `python -I -m orchestrator.runtime [--state DIR] [--workspace DIR] [--packages DIR] …`.

Its exit code is from `wire.run.ExitCode`; the last line of stderr gives the reason in one sentence. At `--deadline`, in
Unix seconds, it exits, whatever it is doing. `--ways` are the skill transports to load while it waits. `--files` limits
the open files of each process, where the engine sets no limit.

Its broker listens in the socket directory below the state directory, or at the address in `--broker`; the latter needs
`--pin` and `--token`, and allows `--closed` and `--names` (see `tls_transport`). `--broker -` means that it is at the
other end of stdin and stdout (see `stream_transport`). `--stderr` names its stderr file.
"""

import gc

gc.disable()  # Imports create hundreds of thousands of permanent objects: 40 % less start time.

import asyncio  # noqa: E402 - after gc.disable
import os  # noqa: E402 - after gc.disable
import resource  # noqa: E402 - after gc.disable
import signal  # noqa: E402 - after gc.disable
import sys  # noqa: E402 - after gc.disable
import threading  # noqa: E402 - after gc.disable
import time  # noqa: E402 - after gc.disable
from collections.abc import Callable, Mapping, Sequence  # noqa: E402 - after gc.disable
from contextlib import AbstractAsyncContextManager, suppress  # noqa: E402 - after gc.disable
from dataclasses import dataclass  # noqa: E402 - after gc.disable
from functools import partial  # noqa: E402 - after gc.disable
from itertools import count  # noqa: E402 - after gc.disable
from pathlib import Path  # noqa: E402 - after gc.disable

from orchestrator.errors import WireError  # noqa: E402 - after gc.disable
from orchestrator.runtime import init_process, kernel_probe, seccomp  # noqa: E402 - after gc.disable
from orchestrator.runtime.emit import Emitter, SpoolFullError, StdoutCopy, emit_initialize  # noqa: E402 - after gc.disable
from orchestrator.runtime.errors import InstallError, NetworkOpenError, SkillError  # noqa: E402 - after gc.disable
from orchestrator.runtime.link import BrokerGoneError, Link, NoBrokerError, attach  # noqa: E402 - after gc.disable
from orchestrator.runtime.preload import warm_up  # noqa: E402 - after gc.disable
from orchestrator.runtime.tool_context import STANDARD_PATH, ToolContext  # noqa: E402 - after gc.disable
from orchestrator.runtime.transport import Transport, UnixTransport  # noqa: E402 - after gc.disable
from orchestrator.wire.facts import Facts, unprotected  # noqa: E402 - after gc.disable
from orchestrator.wire.frames import Assigned  # noqa: E402 - after gc.disable
from orchestrator.wire.layout import MARK, PACKAGES, STATE, STREAM, WORKSPACE  # noqa: E402 - after gc.disable
from orchestrator.wire.run import ExitCode, Run  # noqa: E402 - after gc.disable
from orchestrator.wire.skill import SkillTransport  # noqa: E402 - after gc.disable

_CLOSING_SECONDS = 5.0
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
_EXITS = {
    InstallError: ExitCode.NOT_INSTALLED,
    SkillError: ExitCode.NOT_INSTALLED,
    WireError: ExitCode.FAULT,
    SpoolFullError: ExitCode.SPOOL_FULL,
    NoBrokerError: ExitCode.NO_BROKER,
    BrokerGoneError: ExitCode.BROKER_GONE,
    NetworkOpenError: ExitCode.NETWORK_OPEN,
}
_USAGE = (
    "usage: python -I -m orchestrator.runtime [--state DIR] [--workspace DIR] [--packages DIR]"
    " [--deadline SECONDS] [--ways stdio,http] [--files N] [--stderr FILE]"
    " [--broker - | --broker PORT@HOST,… --pin HEX --token FILE [--closed PORT@HOST,…;… [--names HOST,…]]]"
)
_OPTIONS = ("--deadline", "--ways", "--files", "--stderr", "--broker", "--pin", "--token", "--closed", "--names")
_DIRECTORIES = {"--state": str(STATE), "--workspace": str(WORKSPACE), "--packages": str(PACKAGES)}


def main(args: list[str]) -> int:
    """Execute the assigned work; return the exit code."""
    init_process.become_init()
    options = {**_DIRECTORIES, **dict.fromkeys(_OPTIONS, "")}
    if len(args) % 2 or not set(args[::2]) <= options.keys():
        return _fail(_USAGE, ExitCode.FAULT)
    options |= dict(zip(args[::2], args[1::2], strict=True))
    if stderr := options["--stderr"]:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), 2)
    if files := options["--files"]:
        _limit_files(int(files))
    # Only then the filter, which the probe would take for the engine's, and only then the first thread.
    facts = kernel_probe.probe()
    facts = facts.with_(filtered=seccomp.install())
    if deadline := options["--deadline"]:
        _end_after(float(deadline) - time.time(), "past its deadline", ExitCode.DEADLINE)
    for missing in unprotected(facts):
        sys.stderr.write(f"{missing}\n")
    # From here on, a stray print cannot forge an event: descriptor 1 is stderr.
    event_fd = os.dup(1)
    os.dup2(2, 1)
    gc.freeze()
    gc.enable()
    try:
        transport, show = _open_transport(options, event_fd)
        paths = _RuntimePaths(transport, *(Path(options[name]) for name in _DIRECTORIES))
        transports = [SkillTransport(transport) for transport in options["--ways"].split(",") if transport]
        asyncio.run(_until_stopped(paths, facts, show, transports))
    except asyncio.CancelledError:
        return _fail("stopped from outside", ExitCode.STOPPED)
    except Exception as error:  # noqa: BLE001 - the last place that can report the error
        return _explain(error)
    return ExitCode.DONE


@dataclass(frozen=True, slots=True)
class _RuntimePaths:
    """`mark` is a directory of the host that no other process can replace."""

    broker: Transport
    state: Path
    workspace: Path
    packages: Path

    @property
    def mark(self) -> Path:
        return Path(MARK) if Path(MARK).is_dir() else self.state


def _open_transport(options: Mapping[str, str], event_fd: int) -> tuple[Transport, Callable[[bytes], None]]:
    """Return the transport, and what is called with each event's line."""
    if options["--broker"] == STREAM:
        from orchestrator.runtime import stream_transport  # noqa: PLC0415 - most Sandboxes have a socket

        # A program that inherits descriptor 0 would take frames of the link.
        in_fd = os.dup(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
        stream = stream_transport.StreamTransport(in_fd, event_fd, Path(options["--state"]))
        return stream, stream.grow
    return _transport(options), StdoutCopy(event_fd).write


def _transport(options: Mapping[str, str]) -> Transport:
    if not options["--broker"]:
        return UnixTransport(Path(options["--state"]))
    from orchestrator.runtime import tls_transport  # noqa: PLC0415 - only a Sandbox with a network needs it

    values = (options[name] for name in ("--broker", "--pin", "--token", "--closed", "--names"))
    return tls_transport.parse(*values)


async def _until_stopped(
    paths: _RuntimePaths, facts: Facts, show: Callable[[bytes], None], transports: Sequence[SkillTransport]
) -> None:
    running = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        running.add_signal_handler(signal.SIGTERM, partial(_stop, task))
    inodes = kernel_probe.probe_inodes(paths.mark, paths.workspace)
    async with attach(paths.broker, facts, inodes, meanwhile=partial(warm_up, transports)) as (assigned, link):
        await _do(assigned, link, paths, show)


async def _do(assigned: Assigned, link: Link, paths: _RuntimePaths, show: Callable[[bytes], None]) -> None:
    path = os.environ.get("PATH", STANDARD_PATH)

    def open_forwarder(credential: str) -> AbstractAsyncContextManager[int]:
        from orchestrator.runtime import connect_proxy  # noqa: PLC0415 - most Runs have no way out

        return connect_proxy.listen(link.open_tunnel, credential)

    if assigned.install is not None:
        from orchestrator.runtime import package_installer  # noqa: PLC0415 - no Run needs it

        certificates = {name: os.environ[name] for name in _CERTIFICATES if name in os.environ}
        await package_installer.work(
            assigned.install,
            package_installer.InstallContext(paths.packages, paths.state, path, certificates, open_forwarder),
        )
        return

    def context(run: Run) -> ToolContext:
        parts = count()
        return ToolContext(
            workspace=paths.workspace,
            state=paths.state,
            emitter=Emitter(run, paths.state, show),
            new_part_id=lambda: run.attempt_ref.identify("part", next(parts)),
            open_forwarder=open_forwarder,
            lock_files=link.lock_files,
            path=path,
            packages=paths.packages,
        )

    if assigned.run is not None:
        tool_context = context(assigned.run)
        emit_initialize(assigned.run, tool_context.emitter)
        from orchestrator.runtime import loop  # noqa: PLC0415 - a cold Sandbox emits its first event before it is ready

        await loop.work(assigned.run, link, tool_context, init_process.kill_other_processes)
    elif assigned.inspection is not None:
        from orchestrator.runtime import inspect_skills  # noqa: PLC0415 - no Run needs it

        await inspect_skills.inspect(assigned.inspection, link, context(assigned.inspection))
    elif assigned.shell is not None:
        from orchestrator.runtime import shell_program  # noqa: PLC0415 - no Run waits for what a terminal needs

        await shell_program.work(assigned.shell, link, context(assigned.shell.run))
        await init_process.kill_other_processes()


def _stop(task: "asyncio.Task[None]") -> None:
    # A slow cleanup must end before the engine's stop timeout.
    _end_after(_CLOSING_SECONDS, "stopped from outside; cleanup took too long", ExitCode.STOPPED)
    task.cancel()


def _limit_files(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))


def _end_after(seconds: float, sentence: str, code: ExitCode) -> None:
    def end() -> None:
        with suppress(OSError):
            # Not through the stream: a thread that hangs may hold its lock.
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
        f"the runtime failed ({type(error).__name__}: {error}); this is a bug in perstack-orch", ExitCode.FAULT
    )


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return code


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_code)  # All output is written; shutting the interpreter down would only take time.
