"""`perstack-orch key`: keep providers' keys in the system's keyring."""

import os
from enum import StrEnum
from typing import Annotated

import typer


class KeyAction(StrEnum):
    """What to do with keys."""

    SET = "set"
    LIST = "list"
    REMOVE = "remove"


def key(
    action: Annotated[KeyAction, typer.Argument(metavar="set|list|remove", help="What to do.")],
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="anthropic, openai, google, …; for set and remove.")
    ] = None,
) -> int:
    """Keep providers' keys in the system's keyring. `set` reads the key without echo, or from a pipe.

    A key in the environment or in an env file takes precedence over the keyring.
    """
    from orchestrator.cli.keyring_keys import list_keys, remove_key, set_key  # noqa: PLC0415 - help does not need it

    if action is KeyAction.LIST:
        return list_keys(os.environ)
    return set_key(provider, os.environ) if action is KeyAction.SET else remove_key(provider)
