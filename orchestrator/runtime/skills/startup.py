"""Open all skills of an Expert for one Run, and close them after it.

See docs/reference/perstack.md#kinds-of-skills.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills import SkillSession
from orchestrator.runtime.skills.deferred import DeferredSession
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillConnected, SkillDisconnected
from orchestrator.wire.run import Grant, Run
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, Skill, SkillTransport, SseSkill, StdioSkill

Opened = asyncio.Future[SkillSession | SkillError]
"""A session once it is open; for a skill that may start late, the reason if it could not be opened."""


class Skills:
    """The open sessions of a Run, by skill name, the base skill first."""

    def __init__(self, sessions: Sequence[tuple[str, Opened]], deferred: Sequence[asyncio.Event]) -> None:
        self._sessions = sessions
        self._deferred = deferred

    async def ready(self) -> list[tuple[str, SkillSession]]:
        """Wait for skills that start late (docs/reference/perstack.md#stdio-skills), and return all sessions.

        Raises:
            SkillError: one of them could not be opened.
        """
        return [(name, _usable(await opened)) for name, opened in self._sessions]

    def start(self) -> None:
        """Start the deferred skills; called when there is time, during a model call."""
        for needed in self._deferred:
            needed.set()


@asynccontextmanager
async def open_skills(run: Run, context: ToolContext, base: SkillSession) -> AsyncIterator[Skills]:
    """Open the base skill, then the others at the same time, and wait for those that are not lazy.

    Raises:
        SkillError: in an exception group; one could not be opened, and the others are closed again.
    """
    external_base = next((skill for skill in run.expert.skills if is_external_base(skill)), None)
    if external_base is None:
        context.emitter.emit(SkillConnected, skill_name=BASE_SKILL, spawn_duration_ms=0)
    try:
        async with asyncio.TaskGroup() as tasks:
            opening = _Opening(run, context, tasks, asyncio.Event())
            if external_base is None:
                opening.sessions.append((BASE_SKILL, _opened(base)))
            # If two skills have a tool of the same name, the first one is used: the base skill comes first.
            for skill in sorted(run.expert.skills, key=lambda skill: skill is not external_base):
                if isinstance(skill, InteractiveSkill) or (skill.name == BASE_SKILL and skill is not external_base):
                    continue
                opening.open(skill, run.exec_grant if skill is external_base else run.grants.get(skill.name, Grant()))
            prompt = {skill.name for skill in run.expert.skills if not _is_lazy(skill)}
            for name, opened in opening.sessions:
                if name in prompt:
                    await opened
            yield Skills(opening.sessions, opening.deferred)
            opening.close()
    finally:
        if external_base is None:
            context.emitter.emit(SkillDisconnected, skill_name=BASE_SKILL)


@dataclass(frozen=True, slots=True)
class _Opening:
    """The sessions being opened; `deferred` start skills known from the lock file before their first call."""

    run: Run
    context: ToolContext
    tasks: asyncio.TaskGroup
    closing: asyncio.Event
    sessions: list[tuple[str, Opened]] = field(default_factory=list)
    starting: list[tuple[asyncio.Task[None], Opened]] = field(default_factory=list)
    deferred: list[asyncio.Event] = field(default_factory=list)

    def open(self, skill: StdioSkill | SseSkill, grant: Grant) -> None:
        """Start opening a skill, now or when it is needed."""
        opened: Opened = asyncio.get_running_loop().create_future()
        is_lazy, needed, offered = _is_lazy(skill), None, opened
        known = self.run.known_tools.get(skill.name)
        if known is not None:
            session = DeferredSession(skill, known, opened, self.context.new_part_id)
            if not is_lazy:
                self.deferred.append(session.needed)
            is_lazy, needed, offered = True, session.needed, _opened(session)
        connecting = partial(_connect, skill, grant, self.context)
        keeping_open = _keep_open(connecting, opened, self.closing, is_lazy=is_lazy, needed=needed)
        self.starting.append((self.tasks.create_task(keeping_open), opened))
        self.sessions.append((skill.name, offered))

    def close(self) -> None:
        """Close all sessions."""
        self.closing.set()
        for task, opened in self.starting:
            if not opened.done():
                task.cancel()  # Not needed so far, so no caller waits for it.


def is_external_base(skill: Skill) -> bool:
    """Whether this base skill must run in its own process: a pinned version, or another program.

    Any other skill of that name means the built-in tools.
    """
    if skill.name != BASE_SKILL or not isinstance(skill, StdioSkill):
        return False
    words = (skill.package_name or "", *skill.args)
    return BASE_SKILL not in words or any(word.startswith(f"{BASE_SKILL}@") for word in words)


async def _keep_open(
    connecting: Callable[[], AbstractAsyncContextManager[SkillSession]],
    opened: Opened,
    closing: asyncio.Event,
    *,
    is_lazy: bool,
    needed: asyncio.Event | None,
) -> None:
    # A separate task for each: a session must be closed by the task that opened it.
    if needed is not None:
        await needed.wait()
    try:
        async with connecting() as session:
            opened.set_result(session)
            await closing.wait()
    except SkillError as error:
        if opened.done() or not is_lazy:
            raise
        opened.set_result(error)  # A value, since asyncio logs exceptions that are never retrieved.


def _is_lazy(skill: Skill) -> bool:
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
async def _connect(skill: StdioSkill | SseSkill, grant: Grant, context: ToolContext) -> AsyncIterator[SkillSession]:
    transport = SkillTransport.HTTP if isinstance(skill, SseSkill) else SkillTransport.STDIO
    module = import_module(f"orchestrator.runtime.skills.{transport}")
    async with module.connect(skill, grant, context) as session:
        yield session
