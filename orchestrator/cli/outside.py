"""Commands are started from outside of workspaces; imports next to nothing, since every command passes by here."""

from pathlib import Path

from orchestrator.errors import ConfigError

_WORKSPACE, _STORE = "workspace", "perstack"
"""Where jobs have their files and their records unless told otherwise."""


def refuse_to_start_inside(cwd: Path) -> None:
    """See that `cwd` is not in the default workspace of jobs: store, configuration and env files would be an Expert's.

    Raises:
        ConfigError: it is.
    """
    for folder in (cwd, *cwd.parents):
        if folder.name == _WORKSPACE and (folder.parent / _STORE / "jobs").is_dir():
            message = (
                f"{cwd} is in a workspace, and what is there may be an Expert's: start this from {folder.parent},"
                f" or from any directory outside {folder}"
            )
            raise ConfigError(message)


def refuse_found_store(storage: str, cwd: Path) -> None:
    """See that a store that nobody named is in no directory that was ever mounted as a workspace.

    Raises:
        ConfigError: it is, or leads there.
    """
    if storage != _STORE:
        return
    from orchestrator.mounted import mounted_on  # noqa: PLC0415 - only where there is a store
    from orchestrator.trail import follow  # noqa: PLC0415 - the same

    try:
        reason = mounted_on(follow(cwd / storage))
    except OSError as error:
        reason = f"cannot be reached: {error.strerror}"
    if reason is not None:
        message = f"the store {cwd / storage} {reason}; name one elsewhere with --storage"
        raise ConfigError(message)
