"""Prompts for a line of input, at a terminal or from a pipe."""

import asyncio
import os
import sys
from collections.abc import Sequence

from orchestrator.cli.output.render import plain
from orchestrator.wire.expert import Expert

_STDIN = 0


def show(text: str) -> None:
    """Write permanent lines."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def ask(question: str) -> str | None:
    """Ask, and wait for a line; None at the end of input."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        import readline  # noqa: F401, PLC0415 - gives `input` line editing; at a terminal only

        try:
            return input(f"{question} > ")
        except EOFError:
            show("")
            return None
    show(f"{question} >")
    return _read_answer(_STDIN)


async def ask_async(question: str) -> str | None:
    """Ask while a job keeps running."""
    show(f"{question} >")
    await _wait_readable(_STDIN)
    return _read_answer(_STDIN)


def _read_answer(fd: int) -> str | None:
    """Read exactly one line, so that the next question gets the next; None at the end of input."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(fd, 1)):
        line += byte
    if not line:
        return None
    answer = line.decode("utf-8", "replace").rstrip("\r\n")
    if not os.isatty(fd):
        show(f"> {plain(answer)}")
    return answer


async def _wait_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # A file is always readable, and epoll does not accept it.
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def choose_expert(experts: Sequence[Expert]) -> str | None:
    """Let the user choose an Expert by number or key; None if the user chooses none."""
    for number, expert in enumerate(experts, 1):
        about = f": {plain(expert.description)}" if expert.description else ""
        show(f"{number}. {plain(expert.key)}{about}")
    while (text := ask("which Expert?")) is not None and text.strip():
        choice = text.strip()
        if choice.isdecimal() and 0 < int(choice) <= len(experts):
            return experts[int(choice) - 1].key
        if any(expert.key == choice for expert in experts):
            return choice
        show(f"no Expert {plain(choice)}; enter a number from 1 to {len(experts)}, or a key")
    return None
