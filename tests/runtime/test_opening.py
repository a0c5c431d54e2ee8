"""Skills open and close together."""

import asyncio
import os
import sys
from pathlib import Path

from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.skills.opening import open_skills
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill
from tests.support import inside
from tests.support.scripted_host import a_run, expert


async def test_e5_a_lazy_skill_that_nobody_waited_for_is_not_waited_for(tmp_path: Path) -> None:
    """A Run that ends before it is connected ends at once."""
    surroundings = inside.surroundings(tmp_path)
    gate = surroundings.workspace / "gate"
    os.mkfifo(gate)
    slow = StdioSkill(name="slow", command=sys.executable, args=("-c", f"open({str(gate)!r})"), lazy_init=True)
    run = a_run(expert=expert(skills=(slow,)))
    base = BuiltinSession(run.expert, Grant(), surroundings, [])
    async with asyncio.timeout(10), open_skills(run, surroundings, base):
        while len(inside.events(surroundings)) < 2:  # noqa: ASYNC110 - what is waited for is in a file
            await asyncio.sleep(0.01)
    told = [event.type for event in inside.events(surroundings)]
    assert told == ["skillConnected", "skillStarting", "skillDisconnected"]
