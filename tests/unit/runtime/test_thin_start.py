"""The imports of a Sandbox before it is ready: each module adds to the time of every delegation."""

import subprocess
import sys

import pytest

HEAVY = {"pydantic", "mcp", "httpx2", "typer", "rich", "structlog", "importlib.metadata", "http", "email"}
"""Modules that take tens of milliseconds to import and are not needed to take a Run."""


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
    """The number of modules to attach, and to work, is limited, and no slow module is among them."""
    imported = _imported(program)
    assert "orchestrator.runtime.link" in imported
    assert imported & HEAVY == set()
    assert len(imported) <= most


def test_what_waits_for_the_loop_is_not_needed_to_attach() -> None:
    """The loop, tools and skills are imported only after the Sandbox has attached."""
    imported = _imported("import orchestrator.runtime.__main__")
    assert {
        name for name in imported if name.startswith(("orchestrator.runtime.skills", "orchestrator.runtime.tools"))
    } == set()
