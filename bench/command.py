"""Whole commands, as typed at a terminal, and their events."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.projects import QUERY
from orchestrator.images.context import runtime_image
from tests.support.project import Project

PERSTACK = str(Path(sys.executable).with_name("perstack-orch"))
IMAGE = os.environ.get("PERSTACK_RUNTIME_IMAGE") or runtime_image()


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of a job: to the first line of stdout, of the whole command, and from its first event to its last."""

    first: float
    whole: float
    span: float


def bare() -> float:
    """Start a container of the same image that prints one line, the plain way, and time that line."""
    program = ["--entrypoint", "/opt/perstack/bin/python", IMAGE, "-I", "-c", "print('hello')"]
    return run(["docker", "run", "--rm", *program]).first


def job(project: Project, expert: str, backend: str, *options: str) -> Took:
    """Run a job from the command line."""
    return run([PERSTACK, "run", "--backend", backend, *options, expert, QUERY], project.directory)


def run(command: list[str], cwd: Path | None = None) -> Took:
    """Run a command to its end, which must be good."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if process.stdout is None or process.stderr is None:
            sys.exit("no pipes")
        line = process.stdout.readline()
        first = time.perf_counter() - began
        lines = [line, *process.stdout.readlines()]
        complaint = process.stderr.read().decode()
        process.wait()
    whole = time.perf_counter() - began
    if not line or process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}: {complaint}")
    return Took(first, whole, _span(lines))


def _span(lines: list[bytes]) -> float:
    if not lines[0].startswith(b"{"):
        return 0.0
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    span: float = (last["timestamp"] - first["timestamp"]) / 1000
    return span
