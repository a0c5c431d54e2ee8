"""The base skill: the built-in tools, run in the runtime's process (docs/reference/perstack.md#base-skill)."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tools import (
    Inline,
    ToolError,
    append_text_file,
    check,
    create_directory,
    delete_directory,
    delete_file,
    edit_text_file,
    get_file_info,
    health_check,
    list_directory,
    move_file,
    read_image_file,
    read_pdf_file,
    read_text_file,
    to_json,
    todo,
    write_text_file,
)
from orchestrator.runtime.tools import exec as exec_tool
from orchestrator.wire.expert import Expert
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import FileInlinePart, ImageInlinePart, ResultPart, TextPart, ToolCall, ToolResult
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill

_Answer = str | Inline | Mapping[str, Any]
_Execute = Callable[[Mapping[str, Any]], Awaitable[_Answer]]
_ExecuteFile = Callable[[Mapping[str, Any], Path], Inline | Mapping[str, Any]]

_FILE_TOOLS: tuple[tuple[ToolDefinition, _ExecuteFile], ...] = (
    (read_text_file.DEFINITION, read_text_file.execute),
    (write_text_file.DEFINITION, write_text_file.execute),
    (append_text_file.DEFINITION, append_text_file.execute),
    (edit_text_file.DEFINITION, edit_text_file.execute),
    (list_directory.DEFINITION, list_directory.execute),
    (create_directory.DEFINITION, create_directory.execute),
    (delete_file.DEFINITION, delete_file.execute),
    (delete_directory.DEFINITION, delete_directory.execute),
    (move_file.DEFINITION, move_file.execute),
    (get_file_info.DEFINITION, get_file_info.execute),
    (read_image_file.DEFINITION, read_image_file.execute),
    (read_pdf_file.DEFINITION, read_pdf_file.execute),
    (health_check.DEFINITION, health_check.execute),
)

_LOCKED = frozenset(
    tool.DEFINITION.name for tool in (write_text_file, append_text_file, edit_text_file, delete_file, move_file)
)
"""Tools that change whole files: no other Sandbox may change a file between their read and their write."""

_ON_TODOS = (todo.TODO.name, todo.CLEAR_TODO.name)


class BuiltinSession:
    """The built-in tools of one Run of one Expert.

    Args:
        expert: the Expert whose `pick` and `omit` apply; without a declared base skill all tools are offered.
        exec_grant: the grant of `exec`.
        context: the Sandbox.
        todos: the items that an earlier Run of the same Expert left.
    """

    def __init__(self, expert: Expert, exec_grant: Grant, context: ToolContext, todos: list[Mapping[str, Any]]) -> None:
        self._context = context
        self._todos = todo.TodoList(todos)
        self._commands = exec_tool.Commands(context, exec_grant)
        self._files = asyncio.Lock()
        tools: list[tuple[ToolDefinition, _Execute]] = [
            (definition, partial(self._use_files, execute, locked=definition.name in _LOCKED))
            for definition, execute in _FILE_TOOLS
        ]
        tools += [
            (exec_tool.DEFINITION, self._commands),
            (todo.TODO, self._todo),
            (todo.CLEAR_TODO, self._clear_todo),
            (todo.ATTEMPT_COMPLETION, self._attempt_completion),
        ]
        self._tools = {tool.name: (tool, execute) for tool, execute in tools if _is_offered(expert, tool.name)}

    @property
    def todos(self) -> list[dict[str, Any]]:
        """The current todo items, for the checkpoint."""
        return self._todos.items

    async def replay(self, call: ToolCall) -> None:
        """Repeat the effect of an earlier attempt's call on the todo list; for other calls only the result counts.

        Checkpoints contain the list after a step, and that attempt did not finish its step.
        """
        if call.tool_name in _ON_TODOS:
            await self.call(call)

    async def close(self) -> None:
        """Kill the processes that its commands left behind."""
        await self._commands.close()

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools of this skill, after `pick` and `omit`."""
        return tuple(definition for definition, _ in self._tools.values())

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool; errors are JSON that the model reads (docs/reference/perstack.md#tool-results)."""
        definition, execute = self._tools[call.tool_name]
        try:
            check(definition, call.args)
            answer = await execute(call.args)
        except ToolError as error:
            answer = error.to_json()
        except Exception as error:  # noqa: BLE001 - the model reads every failure of a tool
            answer = to_json({"error": type(error).__name__, "message": str(error)})
        return ToolResult(id=call.id, skill_name=BASE_SKILL, tool_name=call.tool_name, result=(self._part(answer),))

    def _part(self, answer: _Answer) -> ResultPart:
        part_id = self._context.new_part_id()
        if isinstance(answer, Inline):
            data = base64.b64encode(answer.data).decode("ascii")
            if answer.kind == "image":
                return ImageInlinePart(id=part_id, encoded_data=data, mime_type=answer.mime_type)
            return FileInlinePart(id=part_id, encoded_data=data, mime_type=answer.mime_type)
        return TextPart(id=part_id, text=answer if isinstance(answer, str) else to_json(answer))

    async def _use_files(self, execute: _ExecuteFile, args: Mapping[str, Any], *, locked: bool) -> _Answer:
        # In sequence, in the order of the calls: each edit starts from the result of the previous one.
        async with self._files, self._context.lock_files() if locked else nullcontext():
            return await asyncio.to_thread(execute, args, self._context.workspace)

    async def _todo(self, args: Mapping[str, Any]) -> _Answer:
        return self._todos.todo(args)

    async def _clear_todo(self, _args: Mapping[str, Any]) -> _Answer:
        return self._todos.clear()

    async def _attempt_completion(self, _args: Mapping[str, Any]) -> _Answer:
        return self._todos.attempt_completion()


def _is_offered(expert: Expert, tool_name: str) -> bool:
    skill = next((skill for skill in expert.skills if skill.name == BASE_SKILL), None)
    if skill is None or isinstance(skill, InteractiveSkill):
        return True
    return tool_name not in skill.omit and (not skill.pick or tool_name in skill.pick)
