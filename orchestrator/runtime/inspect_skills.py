"""An inspection: start every skill of an Expert once and report its tools."""

from orchestrator.runtime.link import Link
from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.skills.startup import open_skills
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.run import Run


async def inspect(run: Run, link: Link, context: ToolContext) -> None:
    """Report the tools of each skill of `run`, after `pick` and `omit`.

    Raises:
        SkillError: in an exception group; a skill does not start.
    """
    base = BuiltinSession(run.expert, run.exec_grant, context, [])
    async with open_skills(run, context, base) as skills:
        sessions = await skills.ready()
        await link.keep_tools({name: session.tools() for name, session in sessions})
