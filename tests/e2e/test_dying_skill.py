"""An MCP server that dies in the middle of a call."""

import json
import sys
from pathlib import Path

import pytest

from orchestrator.wire.event import ResolveToolResults
from orchestrator.wire.message import TextPart
from tests.support.project import Project, say, use

TOOLS = Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py"


@pytest.mark.behaviour("E8")
async def test_a_server_that_dies_in_a_call_is_an_error_result(tmp_path: Path) -> None:
    """The result names skill and tool and has the server's last output; the Expert continues."""
    # A skill reads nothing of this machine but the workspace and the programs.
    workspace = tmp_path / "project" / "workspace"
    workspace.mkdir(parents=True)
    server = workspace / "tools.py"
    server.write_bytes(TOOLS.read_bytes())
    command, args = json.dumps(sys.executable), json.dumps([str(server)])
    toml = (
        '[experts.one]\ninstruction = "Do it."\n'
        f'[experts.one.skills.kit]\ntype = "mcpStdioSkill"\ncommand = {command}\nargs = {args}\n'
    )
    replies = {"one": [use(("die", {})), say("went on")]}
    result = await Project.make(tmp_path / "project", "process", toml, replies).run("one", "go")
    assert result.code == 0, result.stderr
    [resolved] = result.of(ResolveToolResults)
    [answer] = resolved.tool_results
    [part] = answer.result
    assert isinstance(part, TextPart)
    assert (answer.skill_name, answer.tool_name, answer.is_error) == ("kit", "die", True)
    assert part.text.startswith("Error: tool 'die' of skill 'kit' did not answer: ")
    assert "something broke" in part.text
    assert result.control == [("startRun", "one"), ("completeRun", "one")]
