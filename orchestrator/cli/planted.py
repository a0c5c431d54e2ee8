"""What an Expert may have planted for whoever starts the next job: files where a command looks for its own by itself.

What is in a workspace when a job starts is guarded there (`orchestrator.workspace`); what is not, the job may put
there. So nothing in a workspace is taken for configuration unless it is named: not in one that was ever mounted, which
`orchestrator.config` sees to, and not in that of this command, which may not have been mounted yet.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.options import RunOptions
from orchestrator.config import Config
from orchestrator.config.file import typed
from orchestrator.config.load import locked
from orchestrator.config.lock import LOCK_NAME
from orchestrator.errors import ConfigError

_WORKSPACE = "workspace"


def refuse_found(file: Path, options: RunOptions, cwd: Path) -> Path:
    """Give the perstack.toml that was found, unless it is in the workspace.

    Raises:
        ConfigError: it is.
    """
    if _is_experts(file, options, cwd):
        message = (
            f"{file} is in the workspace and may be an Expert's; if it is yours, name it with --config {typed(file)}"
        )
        raise ConfigError(message)
    return file


def with_lock(config: Config, options: RunOptions, cwd: Path) -> Config:
    """Give the config with what the lock beside it knows; one in the workspace is not opened, and a note says so."""
    lock = config.directory / LOCK_NAME
    if config.path is None or not os.path.lexists(lock):
        return config
    if not _is_experts(lock, options, cwd):
        return locked(config)
    note = f"{lock} is in the workspace and may be an Expert's, so it is ignored; keep it and perstack.toml outside"
    return replace(config, notes=(*config.notes, note))


def of_experts(paths: Iterable[str], options: RunOptions, cwd: Path) -> tuple[str, ...]:
    """List those of the env files that are there and in the workspace."""
    return tuple(path for path in paths if (cwd / path).is_file() and _is_experts(cwd / path, options, cwd))


def _is_experts(file: Path, options: RunOptions, cwd: Path) -> bool:
    # Where nothing is isolated, an Expert can write anywhere; in a cluster its files are on no disk of ours.
    if options.backend != "docker":
        return False
    workspace = (cwd / (options.workspace or _WORKSPACE)).resolve()
    # An Expert may have put a link there, and one that leads there leads to what an Expert may have written.
    return any(path.is_relative_to(workspace) for path in (file.parent.resolve() / file.name, file.resolve()))
