"""The place of one user among many: where `--user` leads."""

import os
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import isolates
from orchestrator.cli.options import RunOptions
from orchestrator.cli.outside import refuse_found_store
from orchestrator.cli.request import parse_user
from orchestrator.errors import ConfigError
from orchestrator.sandbox import User
from orchestrator.users import make_store, make_workspace
from orchestrator.workspace import NOBODY, require_own_way


def own(options: RunOptions, *, with_files: bool = True) -> RunOptions:
    """Give the same options, their storage and workspace those of the user, where one is named.

    Raises:
        ConfigError: options contradict one another, what is there is not this user's, or may be an Expert's.
    """
    if options.user is None:
        if options.workspaces is not None:
            message = "--workspaces holds a workspace for each user; name one with --user ID"
            raise ConfigError(message)
        return options
    cwd = Path.cwd()
    refuse_found_store(options.storage, cwd)
    files = options.workspace
    if with_files:
        if options.workspace is not None:
            message = "--workspace and --user exclude each other: a user's workspace is below --workspaces ROOT"
            raise ConfigError(message)
        if options.workspaces is None:
            message = "--user needs --workspaces ROOT, the directory that holds a workspace for each user"
            raise ConfigError(message)
        # What is made below is made where it was looked at.
        root = require_own_way(cwd / options.workspaces).path
        files = str(make_workspace(root, options.user, _owner(options)))
    return replace(options, storage=str(make_store(cwd / options.storage, options.user)), workspace=files)


def _owner(options: RunOptions) -> User:
    caller = User(os.geteuid(), os.getegid())
    if not isolates(options.backend):
        return caller
    return parse_user(options.run_as) or (NOBODY if caller.uid == 0 else caller)
