"""A program started for a user in a Sandbox, and the frames between it and the user's terminal.

Frames go both ways on a separate connection, which the Sandbox opens with `frames.Terminal`.
"""

from typing import Literal

from msgspec.json import Decoder

from orchestrator.wire.frozen import Frozen, Tagged
from orchestrator.wire.run import Run


class TerminalInfo(Frozen):
    """A terminal: its type, as in TERM, and its size in characters."""

    kind: str
    rows: int
    columns: int


class Shell(Frozen):
    """The program to start: `command`, or a shell if it is empty. It runs as under `exec`, or as the named skill does.

    `run` holds what each may reach. With a `screen` the program gets a pseudoterminal, otherwise pipes.
    """

    run: Run
    skill_name: str | None = None
    command: tuple[str, ...] = ()
    screen: TerminalInfo | None = None


class Typed(Tagged):
    """Input from the keyboard or a pipe; empty at its end."""

    data: bytes


class Resized(Tagged):
    """The terminal has a new size, in characters."""

    rows: int
    columns: int


Stream = Literal["stdout", "stderr"]


class Shown(Tagged):
    """Output of the program."""

    stream: Stream = "stdout"
    data: bytes


class ProgramEnded(Tagged, tag="ended"):
    """The program ended; `code` is its exit code, or 128 plus the number of the signal that ended it."""

    code: int


Inward = Typed | Resized
Outward = Shown | ProgramEnded

INWARD: Decoder[Inward] = Decoder(Inward)
"""Decodes a frame from the user's terminal."""

OUTWARD: Decoder[Outward] = Decoder(Outward)
"""Decodes a frame from the program."""
