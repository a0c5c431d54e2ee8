"""`make bench`: what a container per Run costs, against a bare `docker run` measured beside it.

Prints ratios and writes bench/RESULTS.md. Machines are shared and noisy: read ratios, not milliseconds.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Figures, elapsed, interleave, table
from orchestrator.broker.gate import make_gate
from orchestrator.version import VERSION

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "fitness"
COMMAND = str(Path(sys.executable).with_name("perstack-orch"))
IMAGE = os.environ.get("PERSTACK_RUNTIME_IMAGE") or f"perstack-orch-runtime:{VERSION}"
QUERY = "Start today's session"
RUNS = 3


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        for file in ("perstack.toml", "replies.json"):
            shutil.copy(EXAMPLE / file, directory)
        start = interleave(
            {
                "bare docker run": bare,
                "perstack-orch run, cold, to the first event": lambda: first_event(directory),
                "perstack-orch --help": lambda: elapsed(lambda: call([COMMAND, "--help"])),
                "python -c pass": lambda: elapsed(lambda: call([sys.executable, "-c", "pass"])),
            },
            rounds,
        )
        job = interleave(
            {
                "bare docker run": bare,
                "fitness job on docker, all included": lambda: elapsed(lambda: fitness(directory, "docker")),
                "fitness job on processes, all included": lambda: elapsed(lambda: fitness(directory, "process")),
            },
            max(3, rounds // 2),
        )
        waiting = memory()
    report = render(start, job, waiting, rounds)
    print(report)
    (HERE / "RESULTS.md").write_text(report)


def call(command: list[str], cwd: Path | None = None) -> None:
    """Run a command to its end, which must be good."""
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def bare() -> float:
    """Start a container of the same image that prints one line, the plain way, and time that line."""
    program = ["--entrypoint", "/opt/perstack/bin/python", IMAGE, "-I", "-c", "print('hello')"]
    return first_line(["docker", "run", "--rm", *program], None)


def first_event(directory: Path) -> float:
    """Start the example and time its first event from inside a Sandbox."""
    return first_line([COMMAND, "run", "fitness-assistant", QUERY], directory)


def first_line(command: list[str], cwd: Path | None) -> float:
    """Time a command's first line; it then runs to its end."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        stdout = process.stdout
        if stdout is None:
            sys.exit("no pipe")
        line = stdout.readline()
        seconds = time.perf_counter() - began
        stdout.read()
    if not line or process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return seconds


def fitness(directory: Path, backend: str) -> None:
    """The whole example."""
    call([COMMAND, "run", "--backend", backend, "fitness-assistant", QUERY], directory)


def memory() -> int:
    """Resident bytes of a Sandbox that waits for its Run, of which nothing is shared with others counted twice."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state:
        import socket  # noqa: PLC0415 - one use

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(make_gate(Path(state))))
            listener.listen()
            listener.settimeout(30)
            (Path(state) / "events.jsonl").touch()
            runtime = [sys.executable, "-I", "-m", "orchestrator.runtime", "--state", state, "--workspace", state]
            with subprocess.Popen(runtime, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                connection, _ = listener.accept()
                connection.recv(64)
                status = Path(f"/proc/{process.pid}/status").read_text()
                process.kill()
                connection.close()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(rss.split()[1]) * 1024


def render(start: dict[str, Figures], job: dict[str, Figures], waiting: int, rounds: int) -> str:
    """The report as Markdown."""
    per_run = job["fitness job on docker, all included"].median / RUNS
    ratio = per_run / job["bare docker run"].median
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    return f"""# Figures

Written by `make bench` ({rounds} interleaved rounds in one process; medians, ± half the quartile distance).
Machines are shared and noisy: read ratios, not milliseconds. Machine: `{json.dumps(machine)}`.

## Start

{table(start, "bare docker run")}

## The fitness job: {RUNS} Runs, 7 model calls answered at once

{table(job, "bare docker run")}

Per Run on Docker: {per_run * 1000:.0f} ms, {ratio:.2f} times a bare `docker run`.

## Memory

A Sandbox waiting for its Run: {waiting / 1024 / 1024:.0f} MiB resident.
"""


if __name__ == "__main__":
    main()
