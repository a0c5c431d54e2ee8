"""Commands must start outside of workspaces. Imports next to nothing: each command passes here."""

from pathlib import Path

from orchestrator.errors import ConfigError

_WORKSPACE, _STORE = "workspace", "perstack"
"""The default directories of a job's files and records."""


def refuse_workspace_cwd(cwd: Path) -> None:
    """Refuse a `cwd` in a default workspace: an Expert may own the store, configuration and env files found there.

    Raises:
        ConfigError: `cwd` is in a workspace.
    """
    for folder in (cwd, *cwd.parents):
        if folder.name == _WORKSPACE and (folder.parent / _STORE / "jobs").is_dir():
            message = (
                f"{cwd} is in a workspace, where files may come from an Expert: start this from {folder.parent},"
                f" or from any directory outside {folder}"
            )
            raise ConfigError(message)


def refuse_mounted_store(storage: str, cwd: Path) -> None:
    """Refuse the default store where its directory was ever mounted as a workspace; one the user named is trusted.

    Raises:
        ConfigError: the store is in such a directory, or a link leads there.
    """
    if storage != _STORE:
        return
    from orchestrator.disk.mount_registry import mounted_on  # noqa: PLC0415 - commands without a store do not need it
    from orchestrator.disk.path_trail import follow  # noqa: PLC0415 - the same

    try:
        reason = mounted_on(follow(cwd / storage))
    except OSError as error:
        reason = f"cannot be reached: {error.strerror}"
    if reason is not None:
        message = f"the store {cwd / storage} {reason}; name one elsewhere with --storage"
        raise ConfigError(message)
