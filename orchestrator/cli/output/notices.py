"""Messages on stderr. Nothing in them can control the terminal."""

import sys

from orchestrator.cli.output.render import plain


def write_message(text: str, *, keep: str = "") -> None:
    """Write one message with the program's name; `keep` are control characters that stay."""
    sys.stderr.write(f"perstack-orch: {plain(text, keep=keep)}\n")
    sys.stderr.flush()


def write_warning(text: str) -> None:
    """Write one warning."""
    write_message(f"warning: {text}")


class Notices:
    """stderr as the output of a command that has no other view; it shows no details."""

    def info(self, text: str) -> None:
        """Write a message."""
        write_message(text)

    def warn(self, text: str) -> None:
        """Write a warning."""
        write_warning(text)

    def note(self, text: str) -> None:
        """Drop a detail."""
