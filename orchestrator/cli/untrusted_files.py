"""Configuration files that an Expert may have written for the next job, in places that commands search by default.

`orchestrator.workspace.workspace` guards the files that exist when a job starts; others the job may create. So a file
in a workspace is configuration only if the user names it. `orchestrator.config` enforces this for each directory that
was ever mounted, this module for the workspace of the current command, which may not have been mounted yet.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import mounts_host
from orchestrator.cli.options import RunOptions
from orchestrator.config import Config
from orchestrator.config.file import typed
from orchestrator.config.load import locked
from orchestrator.config.lock_file import LOCK_NAME
from orchestrator.disk.containment import is_within
from orchestrator.errors import ConfigError
from orchestrator.plan.option_values import parse_volume

_WORKSPACE = "workspace"


def refuse_config_in_workspace(file: Path, options: RunOptions, cwd: Path) -> Path:
    """Return the perstack.toml that was found, unless it is in the workspace.

    Raises:
        ConfigError: the file is in the workspace.
    """
    if _is_experts(file, options, cwd):
        message = (
            f"{file} is in the workspace and may come from an Expert; if it is yours, name it with"
            f" --config {typed(file)}"
        )
        raise ConfigError(message)
    return file


def apply_lock(config: Config, options: RunOptions, cwd: Path) -> Config:
    """Return the config with its lock applied; a lock in the workspace is not opened, and a note reports it."""
    lock = config.directory / LOCK_NAME
    if config.path is None or not os.path.lexists(lock):
        return config
    if not _is_experts(lock, options, cwd):
        return locked(config)
    note = (
        f"{lock} is in the workspace and may come from an Expert, so it is ignored; keep it and perstack.toml outside"
    )
    return replace(config, notes=(*config.notes, note))


def untrusted_env_files(paths: Iterable[str], options: RunOptions, cwd: Path) -> tuple[str, ...]:
    """Return the env files that exist in the workspace."""
    return tuple(path for path in paths if (cwd / path).is_file() and _is_experts(cwd / path, options, cwd))


def _is_experts(file: Path, options: RunOptions, cwd: Path) -> bool:
    # Without isolation an Expert can write anywhere; in a cluster its files are not on this machine.
    if not mounts_host(options.backend) or (options.workspace and parse_volume(options.workspace)):
        return False
    workspace = (cwd / (options.workspace or _WORKSPACE)).resolve()
    # Both count: a link in the workspace, and a link from outside to a file in the workspace.
    return any(is_within(path, workspace) for path in (file.parent.resolve() / file.name, file.resolve()))
