"""Opening all skills of an Expert for one Run, and closing them after it (spec 6.1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.runtime.skills.deferred import DeferredSession
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.platform_event import SkillConnected, SkillDisconnected
from orchestrator.wire.run import Grant, Run
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, Skill, SkillWay, SseSkill, StdioSkill

Opened = asyncio.Future[SkillSession | SkillError]
"""A session once it is open; the reason instead where one that may start late could not be opened."""


class Skills:
    """The open sessions of a Run, by skill name, the base skill first."""

    def __init__(self, sessions: Sequence[tuple[str, Opened]], deferred: Sequence[asyncio.Event]) -> None:
        self._sessions = sessions
        self._deferred = deferred

    async def ready(self) -> list[tuple[str, SkillSession]]:
        """Wait for those that start late (spec 6.2), and give all.

        Raises:
            SkillError: one of them could not be opened.
        """
        return [(name, _usable(await opened)) for name, opened in self._sessions]

    def start(self) -> None:
        """Start those that were put off until there is time, which is while the model is asked."""
        for wanted in self._deferred:
            wanted.set()


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
            opening = _Opening(run, surroundings, tasks, asyncio.Event())
            if own_base is None:
                opening.sessions.append((BASE_SKILL, _opened(base)))
            # Where two skills have a tool of one name the first is asked: the base skill leads.
            for skill in sorted(run.expert.skills, key=lambda skill: skill is not own_base):
                if isinstance(skill, InteractiveSkill) or (skill.name == BASE_SKILL and skill is not own_base):
                    continue
                opening.open(skill, run.exec_grant if skill is own_base else run.grants.get(skill.name, Grant()))
            prompt = {skill.name for skill in run.expert.skills if not _is_late(skill)}
            for name, opened in opening.sessions:
                if name in prompt:
                    await opened
            yield Skills(opening.sessions, opening.deferred)
            opening.close()
    finally:
        if own_base is None:
            surroundings.emitter.emit(SkillDisconnected, skill_name=BASE_SKILL)


@dataclass(frozen=True, slots=True)
class _Opening:
    """Sessions of a Run on their way: `deferred` start what is known from a lock and need not wait for its call."""

    run: Run
    surroundings: Surroundings
    tasks: asyncio.TaskGroup
    closing: asyncio.Event
    sessions: list[tuple[str, Opened]] = field(default_factory=list)
    starting: list[tuple[asyncio.Task[None], Opened]] = field(default_factory=list)
    deferred: list[asyncio.Event] = field(default_factory=list)

    def open(self, skill: StdioSkill | SseSkill, grant: Grant) -> None:
        """Begin to open one, or see to it that it can be."""
        opened: Opened = asyncio.get_running_loop().create_future()
        late, wanted, offered = _is_late(skill), None, opened
        known = self.run.known_tools.get(skill.name)
        if known is not None:
            session = DeferredSession(skill, known, opened, self.surroundings.part_id)
            if not late:
                self.deferred.append(session.wanted)
            late, wanted, offered = True, session.wanted, _opened(session)
        connecting = partial(_connect, skill, grant, self.surroundings)
        holding = _hold(connecting, opened, self.closing, late=late, wanted=wanted)
        self.starting.append((self.tasks.create_task(holding), opened))
        self.sessions.append((skill.name, offered))

    def close(self) -> None:
        """Have all sessions closed."""
        self.closing.set()
        for task, opened in self.starting:
            if not opened.done():
                task.cancel()  # Nobody needed it, so nobody waits for it.


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


@asynccontextmanager
async def _connect(
    skill: StdioSkill | SseSkill, grant: Grant, surroundings: Surroundings
) -> AsyncIterator[SkillSession]:
    way = SkillWay.HTTP if isinstance(skill, SseSkill) else SkillWay.STDIO
    # The SDK takes half a second to import, and the model may reply meanwhile.
    module = await asyncio.to_thread(import_module, f"orchestrator.runtime.skills.{way}")
    async with module.connect(skill, grant, surroundings) as session:
        yield session
