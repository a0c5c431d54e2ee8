"""A program started for a person in a Sandbox, and what crosses between it and the person's terminal.

Frames both ways on a connection of its own, which the Sandbox opens with `link.Terminal`.
"""

from typing import Literal

from msgspec.json import Decoder

from orchestrator.wire.frozen import Frozen, Tagged
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


class Typed(Tagged):
    """What was typed, or came over a pipe; nothing at its end."""

    data: bytes


class Resized(Tagged):
    """The terminal has another size now."""

    rows: int
    columns: int


Stream = Literal["stdout", "stderr"]


class Shown(Tagged):
    """What the program wrote."""

    stream: Stream = "stdout"
    data: bytes


class Ended(Tagged):
    """The program is over; `code` is its exit code, 128 and a signal's number where one ended it."""

    code: int


Inward = Typed | Resized
Outward = Shown | Ended

INWARD: Decoder[Inward] = Decoder(Inward)
"""Reads what comes from the person."""

OUTWARD: Decoder[Outward] = Decoder(Outward)
"""Reads what comes from the program."""
