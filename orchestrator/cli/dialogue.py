"""Asking a person, or whoever writes to stdin, for a line."""

import sys
from collections.abc import Sequence

from orchestrator.cli.render import plain
from orchestrator.wire.expert import Expert


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
    line = sys.stdin.readline()
    if not line:
        return None
    said = line.rstrip("\r\n")
    tell(f"> {plain(said)}")
    return said


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
