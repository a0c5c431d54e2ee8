"""What a Sandbox imports before it is ready: each module costs every delegation its time."""

import subprocess
import sys

import pytest

HEAVY = {"pydantic", "mcp", "httpx2", "typer", "rich", "structlog", "importlib.metadata", "http", "email"}
"""What takes tens of milliseconds and is not needed to take a Run."""


def _imported(program: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    ).stderr
    return {line.rpartition("|")[2].strip() for line in found.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("program", "most"),
    [
        ("import orchestrator.runtime.__main__", 235),
        ("import orchestrator.runtime.__main__, orchestrator.runtime.loop", 285),
    ],
)
def test_a_sandbox_imports_little(program: str, most: int) -> None:
    """To attach it imports so many modules at most, to work some more, and none that is heavy."""
    imported = _imported(program)
    assert "orchestrator.runtime.link" in imported
    assert imported & HEAVY == set()
    assert len(imported) <= most


def test_what_waits_for_the_loop_is_not_needed_to_attach() -> None:
    """The loop, tools and skills are imported while the broker is asked."""
    imported = _imported("import orchestrator.runtime.__main__")
    assert {
        name for name in imported if name.startswith(("orchestrator.runtime.skills", "orchestrator.runtime.tools"))
    } == set()
