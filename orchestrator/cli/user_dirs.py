"""The directories of one user among many, as `--user` selects them."""

import os
from pathlib import Path

from orchestrator.backends import isolates
from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.options import RunOptions
from orchestrator.errors import ConfigError
from orchestrator.plan.option_values import parse_user
from orchestrator.sandbox.api import User
from orchestrator.workspace.users import make_store, make_workspace
from orchestrator.workspace.workspace import NOBODY, require_own_way


def resolve_user_dirs(options: RunOptions, *, with_files: bool = True) -> RunOptions:
    """Return the options with the storage and workspace of the user, if they name one.

    Raises:
        ConfigError: options exclude each other, or a directory belongs to another user or may come from an Expert.
    """
    if options.user is None:
        if options.workspaces is not None:
            message = "--workspaces needs --user ID, the user whose workspace to use"
            raise ConfigError(message)
        return options
    cwd = Path.cwd()
    refuse_mounted_store(options.storage, cwd)
    files = options.workspace
    if with_files:
        if options.workspace is not None:
            message = "--workspace and --user exclude each other: a user's workspace is below --workspaces ROOT"
            raise ConfigError(message)
        if options.workspaces is None:
            message = "--user needs --workspaces ROOT, the directory that holds a workspace per user"
            raise ConfigError(message)
        # The checked path is used from here on, so that a link cannot change in between.
        root = require_own_way(cwd / options.workspaces).path
        files = str(make_workspace(root, options.user, _owner(options)))
    return options.with_(storage=str(make_store(cwd / options.storage, options.user)), workspace=files)


def _owner(options: RunOptions) -> User:
    caller = User(os.geteuid(), os.getegid())
    if not isolates(options.backend):
        return caller
    return parse_user(options.run_as) or (NOBODY if caller.uid == 0 else caller)
