"""Commands are started from outside of workspaces; imports next to nothing, since every command passes by here."""

from pathlib import Path

from orchestrator.errors import ConfigError

_WORKSPACE, _STORE = "workspace", "perstack"


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
