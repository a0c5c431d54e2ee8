"""Asking a person, or whoever writes to stdin, for a line."""

import asyncio
import os
import sys
from collections.abc import Sequence

from orchestrator.cli.render import plain
from orchestrator.wire.expert import Expert

_STDIN = 0


def tell(text: str) -> None:
    """Write lines that stay."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def ask(question: str) -> str | None:
    """Ask, and wait for a line; None where nobody answers any more."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        import readline  # noqa: F401, PLC0415 - gives `input` line editing; at a terminal only

        try:
            return input(f"{question} > ")
        except EOFError:
            tell("")
            return None
    tell(f"{question} >")
    return _answer(_STDIN)


async def ask_meanwhile(question: str) -> str | None:
    """The same while a job goes on."""
    tell(f"{question} >")
    await _readable(_STDIN)
    return _answer(_STDIN)


def _answer(fd: int) -> str | None:
    """Read a line and nothing after it, which the next question is to find; None at the end."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(fd, 1)):
        line += byte
    if not line:
        return None
    said = line.decode("utf-8", "replace").rstrip("\r\n")
    if not os.isatty(fd):
        tell(f"> {plain(said)}")
    return said


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # A file is always readable, and cannot be watched.
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def choose(experts: Sequence[Expert]) -> str | None:
    """Let the user choose an Expert by its number or key; None where nobody chooses."""
    for number, expert in enumerate(experts, 1):
        about = f": {plain(expert.description)}" if expert.description else ""
        tell(f"{number}. {plain(expert.key)}{about}")
    while (words := ask("which Expert?")) is not None and words.strip():
        said = words.strip()
        if said.isdecimal() and 0 < int(said) <= len(experts):
            return experts[int(said) - 1].key
        if any(expert.key == said for expert in experts):
            return said
        tell(f"there is no {plain(said)}; give a number from 1 to {len(experts)}, or a key")
    return None
