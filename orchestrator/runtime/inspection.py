"""What an inspection does: start every skill of an Expert once and tell its tools."""

from orchestrator.runtime.link import Link
from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.skills.opening import open_skills
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.run import Run


async def inspect(run: Run, link: Link, surroundings: Surroundings) -> None:
    """Hand over the tools of each skill of `run`, after `pick` and `omit`.

    Raises:
        SkillError: in an exception group; a skill does not start.
    """
    base = BuiltinSession(run.expert, run.exec_grant, surroundings, [])
    async with open_skills(run, surroundings, base) as skills:
        sessions = await skills.ready()
        await link.keep_tools({name: session.tools() for name, session in sessions})
