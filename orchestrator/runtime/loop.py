"""The agent loop: carries out the moves that `decide` and `tool_calls` return, and emits their events."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from orchestrator.runtime import decide, tool_calls
from orchestrator.runtime.delta_stream import DeltaStream
from orchestrator.runtime.emit import Emitter
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.link import Link
from orchestrator.runtime.prompt import system_prompt
from orchestrator.runtime.skills import Routes, route
from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.skills.startup import Skills, open_skills
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.turn import Phase, Transition, Turn, stop_by_error
from orchestrator.wire.checkpoint import Checkpoint, RunError
from orchestrator.wire.generation import Failure, GenerationRequest, Reply
from orchestrator.wire.message import Message, ToolCall, ToolResult
from orchestrator.wire.run import EventDetail, Run

_TODOS = "todos"
"""The metadata field of a checkpoint with the todo list, so that the list outlives the Sandbox."""


async def work(run: Run, link: Link, context: ToolContext, kill_other_processes: Callable[[], Awaitable[bool]]) -> None:
    """Execute a Run up to its terminal event.

    The event is written once all other processes have ended, the broker has the checkpoint, and the spool is synced.

    Raises:
        SpoolFullError, WireError: the events cannot be stored, or the broker refuses a call.
    """
    emitter = context.emitter
    todos = (run.checkpoint.metadata or {}).get(_TODOS, [])
    base = BuiltinSession(run.expert, run.exec_grant, context, todos)
    last: Transition | None = None
    try:
        async with open_skills(run, context, base) as skills:
            last = await Loop(run, link, context, base, skills).work()
    except* SkillError as errors:
        # The conversation includes the query, so that the job can be continued.
        begun = decide.begin(run, system_prompt(run), _now())
        last = _stop_for_skill(begun.turn, next(_leaves(errors)))
    finally:
        await base.close()
        await kill_other_processes()
    if last is not None:
        await _commit(link, emitter, last.turn.checkpoint)
        emitter.emit(last.event, **shown(last.fields, run.events))
        emitter.sync()


class Loop:
    """One Run of one Expert, with its skills open."""

    def __init__(self, run: Run, link: Link, context: ToolContext, base: BuiltinSession, skills: Skills) -> None:
        self._run = run
        self._link = link
        self._emitter = context.emitter
        self._base = base
        self._skills = skills
        self._routes: Routes = {}
        self._generations = run.checkpoint.generations
        self._known = {result.id: result for result in run.known_results}
        self._pause = 0.0

    async def work(self) -> Transition:
        """Continue until the Run stops; return the last move, whose event is not written yet."""
        move = decide.begin(self._run, system_prompt(self._run), _now())
        while move.phase is not Phase.STOPPED:
            await self._report(move)
            if not self._routes and move.phase is not Phase.PREPARING:
                try:
                    self._routes = await self._open_routes()
                except SkillError as error:
                    return _stop_for_skill(move.turn, error)
            move = await self._next(move.phase, move.turn)
        return move

    async def _open_routes(self) -> Routes:
        delegated = self._run.checkpoint.delegated_by is not None
        return route(await self._skills.ready(), self._run.expert, self._run.delegates, delegated=delegated)

    async def _report(self, move: Transition) -> None:
        checkpoint = move.fields.get("checkpoint")
        if checkpoint is not None:
            await _commit(self._link, self._emitter, checkpoint)
        self._emitter.emit(move.event, **shown(move.fields, self._run.events))
        self._emitter.step_number = move.turn.checkpoint.step_number
        self._pause = move.pause or self._pause

    async def _next(self, phase: Phase, turn: Turn) -> Transition:  # noqa: PLR0911 - one line for each state
        match phase:
            case Phase.PREPARING:
                await asyncio.sleep(self._pause)
                self._pause = 0.0
                return decide.prepare(turn, _now())
            case Phase.GENERATING | Phase.GENERATING_RESULT:
                return await self._call_model(phase, turn)
            case Phase.CALLING:
                return await self._call_tools(turn)
            case Phase.RESOLVING:
                return decide.resolve(turn)
            case Phase.CALLING_DELEGATE:
                return tool_calls.delegate(turn, self._routes, _now())
            case Phase.CALLING_INTERACTIVE:
                return tool_calls.interact(turn, _now())
            case _:
                return decide.finish(turn, self._run.max_steps, _now())

    async def _call_model(self, phase: Phase, turn: Turn) -> Transition:
        for_result = phase is Phase.GENERATING_RESULT
        messages = decide.result_messages(turn) if for_result else turn.checkpoint.messages
        reply = await self._generate(turn, messages, for_result=for_result)
        # Set even at the end: another attempt, or a later Run of the conversation, continues this count.
        turn = Turn(turn.checkpoint.with_generations(self._generations), turn.step)
        retries = self._run.max_retries
        if isinstance(reply, Failure):
            return decide.take_failure(turn, reply, retries, _now())
        if for_result:
            return decide.take_result(turn, reply, retries, _now())
        return decide.take_reply(turn, reply, self._routes, retries, _now())

    async def _generate(self, turn: Turn, messages: tuple[Message, ...], *, for_result: bool) -> Reply | Failure:
        request = GenerationRequest(
            id=f"{turn.checkpoint.step_number}/{self._generations}",
            number=self._generations,
            messages=messages,
            tools=() if for_result else tuple(route.definition for route in self._routes.values()),
        )
        self._generations += 1
        stream = DeltaStream(self._emitter, shows_text=for_result)
        self._skills.start()
        try:
            outcome = await self._link.generate(request, stream.take)
            stream.finish(outcome)
        finally:
            stream.close()
        return outcome

    async def _call_tools(self, turn: Turn) -> Transition:
        sorted_calls = tool_calls.partition(turn, self._routes)
        if sorted_calls.local:
            # Before a tool has effects outside, its call must be safe in the spool.
            await asyncio.to_thread(self._emitter.sync)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._call(call)) for call in sorted_calls.local]
            for refusal in sorted_calls.refused:
                tasks.create_task(self._link.keep_result(refusal))
        results = tool_calls.in_order(turn, (*(task.result() for task in running), *sorted_calls.refused))
        return tool_calls.follow(self._with_todos(turn), results, sorted_calls, _now())

    async def _call(self, call: ToolCall) -> ToolResult:
        session = self._routes[call.tool_name].session
        if call.id in self._known:
            if session is self._base:
                await self._base.replay(call)
            return self._known[call.id]
        if session is None:
            message = f"tool {call.tool_name!r} has no session, and was not to be called here"
            raise RuntimeError(message)
        result = await session.call(call)
        await self._link.keep_result(result)
        return result

    def _with_todos(self, turn: Turn) -> Turn:
        before = turn.checkpoint.metadata or {}
        if not self._base.todos and _TODOS not in before:
            return turn
        return turn.with_checkpoint(metadata=before | {_TODOS: self._base.todos})


async def _commit(link: Link, emitter: Emitter, checkpoint: Checkpoint) -> None:
    """Return once the broker has the checkpoint and the events before it would survive a power loss."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(emitter.sync))
        tasks.create_task(link.keep_checkpoint(checkpoint))


def shown(fields: Mapping[str, Any], detail: EventDetail) -> dict[str, Any]:
    """The fields of an event: by default without the conversation, and checkpoints without theirs."""
    if detail is EventDetail.FULL:
        return dict(fields)
    return {
        name: value.head if isinstance(value, Checkpoint) else value
        for name, value in fields.items()
        if name != "messages"
    }


def _stop_for_skill(turn: Turn, error: BaseException) -> Transition:
    return stop_by_error(turn, RunError(name="SkillError", message=str(error)), _now())


def _leaves(errors: BaseException) -> Any:
    if isinstance(errors, BaseExceptionGroup):
        for error in errors.exceptions:
            yield from _leaves(error)
    else:
        yield errors


def _now() -> int:
    return time.time_ns() // 1_000_000
