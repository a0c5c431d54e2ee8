"""The command line, killed at one of its durable steps: `python -m tests.support.crashing N ARGUMENTS…`.

A counter goes up before and after each step; at N the process ends with exit code 9 and without any cleanup. With 0
it runs to its end, and the last line of stderr is the number of steps.
"""

import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import orchestrator.disk.whole_file
import orchestrator.pool.state_directories
from orchestrator.backends.docker import client as docker_engine
from orchestrator.backends.kubernetes import client as kubernetes_api
from orchestrator.backends.process import backend as process
from orchestrator.backends.process import process_records
from orchestrator.cli.app import main
from orchestrator.cli.output.stdout import Stdout
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.store.event_log import EventLog

KILLED = 9
STEPS: tuple[tuple[Any, str], ...] = (
    (orchestrator.disk.whole_file, "_write"),
    (orchestrator.disk.whole_file, "_sync"),
    (EventLog, "_write"),
    (orchestrator.pool.state_directories, "create_spool"),
    (docker_engine.DockerClient, "create"),
    (docker_engine.DockerClient, "start"),
    (docker_engine.DockerClient, "delete"),
    (kubernetes_api.KubernetesClient, "create"),
    (kubernetes_api.KubernetesClient, "delete"),
    (process, "_spawn"),
    (process_records.ProcessRecords, "keep"),
    (process_records.ProcessRecords, "forget"),
    (FrameStream, "send"),
    (Stdout, "write"),
)
"""What is durable or visible from outside: records, events, Sandboxes, frames to a Sandbox, output."""


def _counted(step: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            step()
            result = await function(*args, **kwargs)
            step()
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        step()
        result = function(*args, **kwargs)
        step()
        return result

    return called


def crash_at(target: int, arguments: list[str]) -> int:
    """Run the command line up to step `target`; return its exit code if it ends before."""
    count = itertools.count(1)
    reached = 0

    def step() -> None:
        nonlocal reached
        reached = next(count)
        if reached == target:
            os._exit(KILLED)

    for owner, name in STEPS:
        setattr(owner, name, _counted(step, getattr(owner, name)))
    code = main(arguments)
    sys.stderr.write(f"{reached}\n")
    return code


if __name__ == "__main__":
    sys.exit(crash_at(int(sys.argv[1]), sys.argv[2:]))
