"""The revision of a project's files, if git knows it."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_SECONDS = 10.0
# Neither a hook of the repository nor a prompt may run.
_GIT = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks")


def revision_of(directory: Path, names: Iterable[str]) -> str | None:
    """Return the commit that has the files `names` of a directory as they are; None if no commit does."""
    changed = _output(directory, "status", "--porcelain", "--ignored", "--", *names)
    return (_output(directory, "rev-parse", "HEAD") or None) if changed == "" else None


def _output(directory: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails or is not installed."""
    try:
        ran = subprocess.run(
            [*_GIT, *arguments], cwd=directory, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return ran.stdout.strip()
