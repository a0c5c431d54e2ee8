"""What skills and tools may know of the Sandbox around them."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.emit import Emitter

OpenForwarder = Callable[[str], AbstractAsyncContextManager[int]]
"""Opens a proxy on 127.0.0.1 for the bearer of a credential and gives its port; leaving the block closes it."""

LockFiles = Callable[[], AbstractAsyncContextManager[None]]
"""Waits for the lock under which files of the workspace are changed; leaving the block frees it."""

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The directories of a Sandbox and the ways out of it.

    `part_id` gives an id for each part of a tool's result. `emitter` takes platform events, as in
    `emitter.emit(SkillStarting, skill_name=..., command=..., args=...)`. `path` is the PATH of
    what is started here. `packages` holds what skills are started from.
    """

    workspace: Path
    state: Path
    emitter: Emitter
    part_id: Callable[[], str]
    open_forwarder: OpenForwarder
    lock_files: LockFiles
    path: str = STANDARD_PATH
    packages: Path = Path("/packages")
