"""A macOS host on Linux: a command whose Python has what macOS has (tests/support/macos), and nothing of Linux."""

from pathlib import Path

_CUSTOMIZATION = Path(__file__).with_name("macos")


def environment(home: Path) -> dict[str, str]:
    """Return the variables of such a command; `home` is its home directory, and has its state."""
    return {"PYTHONPATH": str(_CUSTOMIZATION), "HOME": str(home), "XDG_STATE_HOME": str(home / ".local" / "state")}
