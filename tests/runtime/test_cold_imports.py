"""What a cold Run with a skill imports: each module adds to the time before the first tool call."""

import sys
from pathlib import Path

from orchestrator.wire.run import Grant, Run
from orchestrator.wire.skill import SseSkill, StdioSkill
from tests.support.scripted_host import a_run, calls, ended, expert, says, scripted_host, start_runtime

TOOLS = Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py"
FOREIGN = {"mcp", "mcp_types", "httpx2", "anyio", "pydantic", "jsonschema", "h11", "starlette", "opentelemetry"}
"""Packages of the protocol's SDK, and what it brings. None of them is in the image of Sandboxes."""


async def imported(directory: Path, run: Run) -> tuple[set[str], str]:
    """Return the modules that a runtime imports for a Run that calls `add`, and what its events contain."""
    replies = (calls(("add", {"a": 2, "b": 3})), says("Done"))
    async with scripted_host(directory, run, replies, refused_tunnel="no way out") as host:
        (directory / "workspace" / "tools.py").write_bytes(TOOLS.read_bytes())
        done = await ended(host, await start_runtime(host, "-X", "importtime"))
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}, done.stdout.decode()


async def test_a_skill_over_pipes_imports_no_package_of_the_sdk(tmp_path: Path) -> None:
    """Its tools are listed and called, and the result is checked against its schema, without any of them."""
    command = StdioSkill(
        name="kit", command=sys.executable, args=("-I", str(tmp_path / "workspace" / "tools.py")), lazy_init=False
    )
    modules, text = await imported(tmp_path, a_run(expert=expert(skills=(command,))))
    assert '"text":"5"' in text
    assert "orchestrator.runtime.mcp.json_schema" in modules
    assert {module.partition(".")[0] for module in modules} & FOREIGN == set()


async def test_a_skill_over_http_imports_no_package_of_the_sdk(tmp_path: Path) -> None:
    """The runtime calls its endpoint, and shows the refusal, without any of them."""
    far = SseSkill(name="far", endpoint="https://mcp.example.com/mcp")
    run = a_run(expert=expert(skills=(far,)), grants={"far": Grant(proxy_credential="c0ffee")})
    modules, text = await imported(tmp_path, run)
    assert "orchestrator.runtime.mcp.streamable_http" in modules
    assert "skill 'far' cannot be used: mcp.example.com could not be reached: 403 no way out" in text
    assert {module.partition(".")[0] for module in modules} & FOREIGN == set()
