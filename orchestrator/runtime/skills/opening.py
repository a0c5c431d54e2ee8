"""Opening all skills of an Expert for one Run, and closing them after it (spec 6.1)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from orchestrator.runtime.skills import SkillError, SkillSession
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.platform_event import SkillConnected, SkillDisconnected
from orchestrator.wire.run import Grant, Run
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, SseSkill, StdioSkill


@asynccontextmanager
async def open_skills(
    run: Run, surroundings: Surroundings, base: SkillSession
) -> AsyncIterator[list[tuple[str, SkillSession]]]:
    """Open the base skill, then the others at the same time; give them by name, the base skill first.

    Raises:
        SkillError: in an exception group; one could not be opened, and the others are closed again.
    """
    surroundings.emitter.emit(SkillConnected, skill_name=BASE_SKILL, spawn_duration_ms=0)
    try:
        async with asyncio.TaskGroup() as tasks:
            closing = asyncio.Event()
            opened: list[tuple[str, asyncio.Future[SkillSession]]] = []
            for skill in run.expert.skills:
                if skill.name == BASE_SKILL or isinstance(skill, InteractiveSkill):
                    continue
                session: asyncio.Future[SkillSession] = asyncio.get_running_loop().create_future()
                grant = run.grants.get(skill.name, Grant())
                tasks.create_task(_hold(skill, grant, surroundings, session, closing))
                opened.append((skill.name, session))
            yield [(BASE_SKILL, base), *[(name, await session) for name, session in opened]]
            closing.set()
    finally:
        surroundings.emitter.emit(SkillDisconnected, skill_name=BASE_SKILL)


async def _hold(
    skill: StdioSkill | SseSkill,
    grant: Grant,
    surroundings: Surroundings,
    opened: asyncio.Future[SkillSession],
    closing: asyncio.Event,
) -> None:
    # A task of its own for each: a session must be closed by the task that opened it.
    async with _connect(skill, grant, surroundings) as session:
        opened.set_result(session)
        await closing.wait()


def _connect(
    skill: StdioSkill | SseSkill, grant: Grant, surroundings: Surroundings
) -> AbstractAsyncContextManager[SkillSession]:
    if isinstance(skill, SseSkill):
        message = f"skill {skill.name!r} is of type mcpSseSkill, which is not supported yet; use mcpStdioSkill"
        raise SkillError(message)
    from orchestrator.runtime.skills.stdio import connect  # noqa: PLC0415 - mcp takes a second to import

    return connect(skill, grant, surroundings)
