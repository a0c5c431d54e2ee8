"""Skills whose packages come from registries: one from npm, one from PyPI, and what a model calls of them."""

from orchestrator.wire.event import ResolveToolResults
from orchestrator.wire.package import Installed
from tests.support.project import Result, say, use

EVERYTHING = """
[experts."solo"]
instruction = "Echo and tell the time."
[experts."solo".skills."everything"]
type = "mcpStdioSkill"
command = "npx"
packageName = "@modelcontextprotocol/server-everything"
pick = ["echo"]
"""

TIME = """
[experts."solo".skills."time"]
type = "mcpStdioSkill"
command = "uvx"
args = ["mcp-server-time", "--local-timezone", "Europe/Berlin"]
"""

TIME_ONLY = '[experts."solo"]\ninstruction = "Tell the time."\n' + TIME

CALLS = {
    "solo": [
        use(("echo", {"message": "hello-42"}), ("get_current_time", {"timezone": "Asia/Tokyo"})),
        say("done"),
    ]
}

ASK_TIME = {"solo": [use(("get_current_time", {"timezone": "Asia/Tokyo"})), say("done")]}


TWO_PACKAGES = """
[experts.boss]
instruction = "Lead."
[experts.boss.skills.web]
type = "mcpStdioSkill"
command = "npx"
packageName = "web-server"
[experts.boss.skills.time]
type = "mcpStdioSkill"
command = "uvx"
args = ["time-server", "--local"]
"""
"""An Expert whose skills need two packages; no registry has them."""

INSTALLED = Installed(name="n", version="1", entry="bin/run", runs_on_node=True)
"""What an install of such a package reports."""


def results(result: Result) -> list[str]:
    """The texts of all tool results."""
    return [
        part.text for event in result.of(ResolveToolResults) for answer in event.tool_results for part in answer.result
    ]
