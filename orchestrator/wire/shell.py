"""A program started for a person in a Sandbox, and what crosses between it and the person's terminal.

Frames both ways on a connection of its own, which the Sandbox opens with `link.Terminal`.
"""

from functools import cache
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.run import Run


class Screen(Frozen):
    """A terminal: its kind, as in TERM, and its size in characters."""

    kind: str
    rows: int
    columns: int


class Shell(Frozen):
    """What to start: `command`, or a shell where that is empty, as `exec` would or, if one is named, as a skill is.

    `run` says what each may reach. With a `screen` it gets a pseudoterminal, else pipes.
    """

    run: Run
    skill_name: str | None = None
    command: tuple[str, ...] = ()
    screen: Screen | None = None


class _Bytes(Frozen):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Typed(_Bytes):
    """What was typed, or came over a pipe; nothing at its end."""

    kind: Literal["typed"] = "typed"
    data: bytes


class Resized(Frozen):
    """The terminal has another size now."""

    kind: Literal["resized"] = "resized"
    rows: int
    columns: int


Stream = Literal["stdout", "stderr"]


class Shown(_Bytes):
    """What the program wrote."""

    kind: Literal["shown"] = "shown"
    stream: Stream = "stdout"
    data: bytes


class Ended(Frozen):
    """The program is over; `code` is its exit code, 128 and a signal's number where one ended it."""

    kind: Literal["ended"] = "ended"
    code: int


Inward = Annotated[Typed | Resized, Field(discriminator="kind")]
Outward = Annotated[Shown | Ended, Field(discriminator="kind")]


@cache
def inward() -> TypeAdapter[Inward]:
    """How to read what comes from the person."""
    return TypeAdapter(Inward)


@cache
def outward() -> TypeAdapter[Outward]:
    """How to read what comes from the program."""
    return TypeAdapter(Outward)
