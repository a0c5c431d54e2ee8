"""What a Sandbox costs that waits for its Run: memory, and no CPU."""

import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.section import Section, Target, rows
from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.skill import SkillTransport

MEGABYTES, WITH_MCP = 45, 95
_SECONDS = 3.0
_TICKS = 100


@dataclass(frozen=True, slots=True)
class Waiting:
    """Private memory in megabytes, and the share of a core that it uses."""

    megabytes: float
    core: float


def waiting() -> Section:
    """Measure with and without the MCP client."""
    plain, ready = wait(()), wait((SkillTransport.STDIO, SkillTransport.HTTP))
    text = rows(
        ["waiting", "memory", "CPU"],
        ["as it is", f"{plain.megabytes:.0f} MB", f"{plain.core:.1%} of a core"],
        ["with MCP ready", f"{ready.megabytes:.0f} MB", f"{ready.core:.1%} of a core"],
    )
    targets = (
        _target("memory of a waiting Sandbox", plain.megabytes, MEGABYTES),
        _target("the same with MCP ready", ready.megabytes, WITH_MCP),
    )
    return Section("Waiting Sandboxes", text, targets)


def _target(what: str, megabytes: float, most: int) -> Target:
    return Target(what, f"≤ {most} MB", f"{megabytes:.0f} MB", megabytes <= most)


def wait(ways: tuple[SkillTransport, ...]) -> Waiting:
    """Start a runtime as a process, let it get ready, and look."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(make_socket_directory(Path(state))))
        listener.listen()
        listener.settimeout(30)
        (Path(state) / SPOOL_NAME).touch()
        runtime = [sys.executable, "-I", "-m", "orchestrator.runtime", "--state", state, "--workspace", state]
        runtime += ["--ways", ",".join(ways)] if ways else []
        with subprocess.Popen(runtime, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            connection, _ = listener.accept()
            time.sleep(_SECONDS)  # It imports what it will need.
            before = _ticks(process.pid)
            time.sleep(_SECONDS)
            used = (_ticks(process.pid) - before) / _TICKS / _SECONDS
            megabytes = resident(process.pid)
            process.kill()
            connection.close()
    return Waiting(megabytes, used)


def resident(pid: int) -> float:
    """Megabytes of a process, what it shares with others counted in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def _ticks(pid: int) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])
