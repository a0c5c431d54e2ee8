"""The broker's interface to the store."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.generation import Reply
from orchestrator.wire.message import ToolResult


@dataclass(frozen=True, slots=True)
class RunRecords:
    """Four operations of the store. Each returns once its data is safe.

    `keep_result(run_id, result)`, `keep_reply(run_id, request_id, reply)`; `reply(run_id, request_id)` returns the
    stored reply, or None.
    """

    keep_checkpoint: Callable[[Checkpoint], Awaitable[None]]
    keep_result: Callable[[str, ToolResult], Awaitable[None]]
    keep_reply: Callable[[str, str, Reply], Awaitable[None]]
    reply: Callable[[str, str], Awaitable[Reply | None]]
