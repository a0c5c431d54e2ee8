"""What skills and tools may use of their Sandbox."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.emit import Emitter
from orchestrator.wire.layout import PACKAGES

OpenForwarder = Callable[[str], AbstractAsyncContextManager[int]]
"""Opens a forwarder on 127.0.0.1 for a credential and returns its port; leaving the block closes it."""

LockFiles = Callable[[], AbstractAsyncContextManager[None]]
"""Waits for the lock on workspace changes; leaving the block releases it."""

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The directories of a Sandbox, its forwarders and its locks.

    `state` is the state directory. `new_part_id` returns an id for each part of a tool's result. `emitter` takes
    platform events, as in `emitter.emit(SkillStarting, skill_name=..., command=..., args=...)`. `path` is the PATH of
    started processes. `packages` holds the installed packages of skills.
    """

    workspace: Path
    state: Path
    emitter: Emitter
    new_part_id: Callable[[], str]
    open_forwarder: OpenForwarder
    lock_files: LockFiles
    path: str = STANDARD_PATH
    packages: Path = Path(PACKAGES)
