import tomllib
from pathlib import Path

import pytest
import tomli_w

from orchestrator.config.lock_file import known_tools, lock_document
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
    """A lock file with one Expert."""
    path = tmp_path / "perstack.lock"
    document = lock_document(EXPERTS, {"solo": {BASE_SKILL: (READ,), "kit": (ECHO,)}}, "perstack.toml", 7)
    path.write_text(tomli_w.dumps(document))
    return path


@pytest.mark.behaviour("B12")
def test_the_lock_has_perstacks_form(lock: Path) -> None:
    """It has the tools of interactive skills and no nulls."""
    written = tomllib.loads(lock.read_text())
    expert = written["experts"]["solo"]
    assert (written["version"], written["generatedAt"], written["configPath"]) == ("1", 7, "perstack.toml")
    assert list(expert["skills"]) == [BASE_SKILL, "kit", "ask"]
    assert expert["toolDefinitions"] == [
        {"skillName": BASE_SKILL, "name": "readTextFile", "inputSchema": {"type": "object"}},
        {"skillName": "kit", "name": "echo", "description": "Echoes.", "inputSchema": {"type": "object"}},
        {"skillName": "ask", "name": "question", "inputSchema": {"type": "object"}},
    ]


@pytest.mark.behaviour("E12")
def test_a_lock_has_the_tools_of_skills_that_are_started(lock: Path) -> None:
    """The built-in and the interactive ones need no server."""
    echo = ECHO.with_(input_schema={"type": "object"})
    assert known_tools(lock, EXPERTS) == ({"solo": {"kit": (echo,)}}, ())


@pytest.mark.behaviour("E12")
def test_another_definition_is_not_in_the_lock(lock: Path) -> None:
    """There is a note about an Expert that changed since, and none about a new one."""
    changed = {"solo": EXPERT.with_(instruction="y"), "new": EXPERT.with_(key="new")}
    tools, notes = known_tools(lock, changed)
    assert (tools, len(notes)) == ({}, 1)
    assert "'solo'" in notes[0]


@pytest.mark.behaviour("E12")
@pytest.mark.parametrize("content", ["no toml [", 'version = "2"', 'version = "1"\ngeneratedAt = 1', "\udcff"])
def test_a_lock_that_cannot_be_read_is_a_note(tmp_path: Path, content: str) -> None:
    """It is never an error: without a lock the servers list their tools."""
    path = tmp_path / "perstack.lock"
    path.write_bytes(content.encode(errors="surrogateescape"))
    tools, notes = known_tools(path, EXPERTS)
    assert tools == {}
    assert notes == (f"{path} is not a valid lock file, so it is ignored; perstack-orch install writes a new one",)


def test_a_missing_lock_causes_no_note(tmp_path: Path) -> None:
    """A missing lock file causes no note, since most projects have none."""
    assert known_tools(tmp_path / "perstack.lock", EXPERTS) == ({}, ())
