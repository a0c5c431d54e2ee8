import tomllib
from pathlib import Path

import pytest
import tomli_w

from orchestrator.config.lock import known_tools, lock_document
from orchestrator.wire.expert import Expert
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, InteractiveTool, StdioSkill

EXPERT = Expert(
    key="solo",
    name="solo",
    instruction="x",
    skills=(
        StdioSkill(name=BASE_SKILL, command="npx", package_name=BASE_SKILL),
        StdioSkill(name="kit", command="npx", package_name="kit", omit=("rm",)),
        InteractiveSkill(name="ask", tools=(InteractiveTool(name="question", input_schema={"type": "object"}),)),
    ),
)
ECHO = ToolDefinition(name="echo", description="Echoes.", input_schema={"type": "object", "default": None})
READ = ToolDefinition(name="readTextFile", input_schema={"type": "object"})
EXPERTS = {"solo": EXPERT}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of one Expert."""
    path = tmp_path / "perstack.lock"
    document = lock_document(EXPERTS, {"solo": {BASE_SKILL: (READ,), "kit": (ECHO,)}}, "perstack.toml", 7)
    path.write_text(tomli_w.dumps(document))
    return path


def test_b12_the_shape_of_the_lock(lock: Path) -> None:
    """As Perstack writes it, with the tools of interactive skills and without nulls."""
    written = tomllib.loads(lock.read_text())
    expert = written["experts"]["solo"]
    assert (written["version"], written["generatedAt"], written["configPath"]) == ("1", 7, "perstack.toml")
    assert list(expert["skills"]) == [BASE_SKILL, "kit", "ask"]
    assert expert["toolDefinitions"] == [
        {"skillName": BASE_SKILL, "name": "readTextFile", "inputSchema": {"type": "object"}},
        {"skillName": "kit", "name": "echo", "description": "Echoes.", "inputSchema": {"type": "object"}},
        {"skillName": "ask", "name": "question", "inputSchema": {"type": "object"}},
    ]


def test_e12_what_a_lock_knows(lock: Path) -> None:
    """The tools of skills that are started; the built-in and the interactive ones need no server."""
    echo = ECHO.with_(input_schema={"type": "object"})
    assert known_tools(lock, EXPERTS) == ({"solo": {"kit": (echo,)}}, ())


def test_e12_another_definition_is_not_in_the_lock(lock: Path) -> None:
    """An Expert that was changed since is told of; one that is new is not."""
    changed = {"solo": EXPERT.with_(instruction="y"), "new": EXPERT.with_(key="new")}
    tools, notes = known_tools(lock, changed)
    assert (tools, len(notes)) == ({}, 1)
    assert "'solo'" in notes[0]


@pytest.mark.parametrize("content", ["no toml [", 'version = "2"', 'version = "1"\ngeneratedAt = 1', "\udcff"])
def test_e12_a_lock_that_cannot_be_read_is_a_note(tmp_path: Path, content: str) -> None:
    """Never an error: without it skills are asked."""
    path = tmp_path / "perstack.lock"
    path.write_bytes(content.encode(errors="surrogateescape"))
    tools, notes = known_tools(path, EXPERTS)
    assert tools == {}
    assert notes == (
        f"{path} is not a lock that can be read, so it is ignored; perstack-orch install writes a new one",
    )


def test_no_lock_is_nothing_to_tell_of(tmp_path: Path) -> None:
    """Most projects have none."""
    assert known_tools(tmp_path / "perstack.lock", EXPERTS) == ({}, ())
