"""Opening all skills of an Expert for one Run, and closing them after it (spec 6.1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.runtime.skills.deferred import DeferredSession
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.platform_event import SkillConnected, SkillDisconnected
from orchestrator.wire.run import Grant, Run
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, Skill, SseSkill, StdioSkill

Opened = asyncio.Future[SkillSession | SkillError]
"""A session once it is open; the reason instead where one that may start late could not be opened."""


class Skills:
    """The open sessions of a Run, by skill name, the base skill first."""

    def __init__(self, sessions: Sequence[tuple[str, Opened]]) -> None:
        self._sessions = sessions

    async def ready(self) -> list[tuple[str, SkillSession]]:
        """Wait for those that start late (spec 6.2), and give all.

        Raises:
            SkillError: one of them could not be opened.
        """
        return [(name, _usable(await opened)) for name, opened in self._sessions]


@asynccontextmanager
async def open_skills(run: Run, surroundings: Surroundings, base: SkillSession) -> AsyncIterator[Skills]:
    """Open the base skill, then the others at the same time, and wait for those that are not lazy (E5).

    Raises:
        SkillError: in an exception group; one could not be opened, and the others are closed again.
    """
    own_base = next((skill for skill in run.expert.skills if is_other_base(skill)), None)
    if own_base is None:
        surroundings.emitter.emit(SkillConnected, skill_name=BASE_SKILL, spawn_duration_ms=0)
    try:
        async with asyncio.TaskGroup() as tasks:
            closing = asyncio.Event()
            sessions = [] if own_base is not None else [(BASE_SKILL, _opened(base))]
            starting: list[tuple[asyncio.Task[None], Opened]] = []
            # Where two skills have a tool of one name the first is asked: the base skill leads.
            for skill in sorted(run.expert.skills, key=lambda skill: skill is not own_base):
                if (skill.name == BASE_SKILL and skill is not own_base) or isinstance(skill, InteractiveSkill):
                    continue
                opened: Opened = asyncio.get_running_loop().create_future()
                grant = run.exec_grant if skill is own_base else run.grants.get(skill.name, Grant())
                late, wanted = _is_late(skill), None
                offered = opened
                if (known := run.known_tools.get(skill.name)) is not None:
                    deferred = DeferredSession(skill, known, opened, surroundings.part_id)
                    late, wanted, offered = True, deferred.wanted, _opened(deferred)
                holding = _hold(
                    partial(_connect, skill, grant, surroundings), opened, closing, late=late, wanted=wanted
                )
                starting.append((tasks.create_task(holding), opened))
                sessions.append((skill.name, offered))
            prompt = {skill.name for skill in run.expert.skills if not _is_late(skill)}
            for name, opened in sessions:
                if name in prompt:
                    await opened
            yield Skills(sessions)
            closing.set()
            for task, opened in starting:
                if not opened.done():
                    task.cancel()  # Nobody needed it, so nobody waits for it.
    finally:
        if own_base is None:
            surroundings.emitter.emit(SkillDisconnected, skill_name=BASE_SKILL)


def is_other_base(skill: Skill) -> bool:
    """Whether this is a base skill that is to run in a process of its own: a pinned version, or another program (E7).

    Anything else that is called so means the built-in tools.
    """
    if skill.name != BASE_SKILL or not isinstance(skill, StdioSkill):
        return False
    words = (skill.package_name or "", *skill.args)
    return BASE_SKILL not in words or any(word.startswith(f"{BASE_SKILL}@") for word in words)


async def _hold(
    connecting: Callable[[], AbstractAsyncContextManager[SkillSession]],
    opened: Opened,
    closing: asyncio.Event,
    *,
    late: bool,
    wanted: asyncio.Event | None,
) -> None:
    # A task of its own for each: a session must be closed by the task that opened it.
    if wanted is not None:
        await wanted.wait()
    try:
        async with connecting() as session:
            opened.set_result(session)
            await closing.wait()
    except SkillError as error:
        if opened.done() or not late:
            raise
        opened.set_result(error)  # A value: asyncio reports exceptions that nobody fetches.


def _is_late(skill: Skill) -> bool:
    return isinstance(skill, StdioSkill) and skill.lazy_init and skill.name != BASE_SKILL


def _opened(session: SkillSession) -> Opened:
    opened: Opened = asyncio.get_running_loop().create_future()
    opened.set_result(session)
    return opened


def _usable(opened: SkillSession | SkillError) -> SkillSession:
    if isinstance(opened, SkillError):
        raise opened
    return opened


def _connect(
    skill: StdioSkill | SseSkill, grant: Grant, surroundings: Surroundings
) -> AbstractAsyncContextManager[SkillSession]:
    # The SDK takes a second to import, and HTTP half of another: only Runs that need them wait for them.
    if isinstance(skill, SseSkill):
        from orchestrator.runtime.skills import http  # noqa: PLC0415 - see above

        return http.connect(skill, grant, surroundings)
    from orchestrator.runtime.skills import stdio  # noqa: PLC0415 - see above

    return stdio.connect(skill, grant, surroundings)
