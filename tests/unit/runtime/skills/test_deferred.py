import asyncio

import pytest

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.runtime.skills.deferred import DeferredSession
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import TextPart, ToolCall, ToolResult
from orchestrator.wire.skill import StdioSkill

CALL = ToolCall(id="t", skill_name="kit", tool_name="echo", args={})
KNOWN = [ToolDefinition(name=name, input_schema={}) for name in ("echo", "rm", "ls")]


@pytest.mark.behaviour("E12")
async def test_pick_and_omit_apply_to_a_lock_too() -> None:
    """A lock may be older than they are, or from another author."""
    opened: asyncio.Future[SkillSession | SkillError] = asyncio.get_running_loop().create_future()
    kit = StdioSkill(name="kit", command="npx", package_name="kit", pick=("echo", "rm"), omit=("rm",))
    assert DeferredSession(kit, KNOWN, opened, lambda: "p").tools() == (KNOWN[0],)


@pytest.mark.behaviour("E12")
async def test_a_server_that_does_not_start_on_its_first_call_is_a_result() -> None:
    """The model gets what is wrong with it."""
    opened: asyncio.Future[SkillSession | SkillError] = asyncio.get_running_loop().create_future()
    kit = StdioSkill(name="kit", command="npx", package_name="kit")
    session = DeferredSession(kit, KNOWN, opened, lambda: "p")
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(session.call(CALL))
        await session.needed.wait()
        opened.set_result(SkillError("skill 'kit' does not start"))
    expected = (TextPart(id="p", text="Error: skill 'kit' does not start"),)
    assert calling.result() == ToolResult(id="t", skill_name="kit", tool_name="echo", result=expected, is_error=True)
