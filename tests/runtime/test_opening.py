"""Opening and closing of skills."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.skills.startup import open_skills
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill
from tests.support import tool_contexts
from tests.support.scripted_host import a_run, expert


@pytest.mark.behaviour("E5")
async def test_a_run_that_ends_does_not_wait_for_a_lazy_skill(tmp_path: Path) -> None:
    """It ends at once, though the skill is not connected."""
    context = tool_contexts.context(tmp_path)
    gate = context.workspace / "gate"
    os.mkfifo(gate)
    slow = StdioSkill(name="slow", command=sys.executable, args=("-c", f"open({str(gate)!r})"), lazy_init=True)
    run = a_run(expert=expert(skills=(slow,)))
    base = BuiltinSession(run.expert, Grant(), context, [])
    async with asyncio.timeout(10), open_skills(run, context, base):
        while len(tool_contexts.events(context)) < 2:  # noqa: ASYNC110 - what is waited for is in a file
            await asyncio.sleep(0.01)
    told = [event.type for event in tool_contexts.events(context)]
    assert told == ["skillConnected", "skillStarting", "skillDisconnected"]
