"""The status of a job for log files: one logfmt line on stderr per notable event."""

import asyncio
from collections.abc import Callable, MutableMapping
from functools import cached_property
from importlib import import_module
from typing import Any, Self, TextIO

from orchestrator.cli.output.render import plain, receipt_lines, stop_reason
from orchestrator.jobs.outcome import Outcome
from orchestrator.wire.event import Event, InitializeRuntime, ProxyAccess, SkillStderr, StopRunByError, TerminalEvent


class JobLog:
    """Writes log lines; `mask` masks secrets in them."""

    def __init__(
        self, stream: TextIO, unit: str, *, job_id: str, mask: Callable[[bytes], bytes], verbose: bool = False
    ) -> None:
        self._stream = stream
        self._unit = unit
        self._job_id = job_id
        self._mask = mask
        self._verbose = verbose

    async def prepare(self) -> None:
        """Import structlog, which takes 100 ms, while there is nothing to write."""
        if "_log" not in self.__dict__:
            await asyncio.to_thread(import_module, "structlog")

    @cached_property
    def _log(self) -> Any:
        import structlog  # noqa: PLC0415 - see `prepare`

        def cleaned(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
            return {key: _clean(value, self._mask) for key, value in fields.items()}

        return structlog.wrap_logger(
            structlog.PrintLogger(self._stream),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                cleaned,
                structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
            ],
        ).bind(job=self._job_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def info(self, text: str) -> None:
        """Log a message."""
        self._log.info(text)

    def warn(self, text: str) -> None:
        """Log a warning."""
        self._log.warning(text)

    def note(self, text: str) -> None:
        """Log a detail."""
        self._log.info(text)

    def event(self, event: Event) -> None:
        """Log the event if it is notable."""
        if isinstance(event, TerminalEvent):
            failure = {"error": event.error.message} if isinstance(event, StopRunByError) else {}
            self._log.info(
                "run stopped", run=event.run_id, expert=event.expert_key, reason=stop_reason(event), **failure
            )
        elif isinstance(event, InitializeRuntime):
            self._log.info("run started", run=event.run_id, expert=event.expert_name)
        elif isinstance(event, ProxyAccess) and event.action == "blocked":
            self._log.warning("host blocked", run=event.run_id, host=event.domain, port=event.port, reason=event.reason)
        elif isinstance(event, SkillStderr) and self._verbose:
            self._log.info("skill stderr", run=event.run_id, skill=event.skill_name, said=event.message)

    def finish(self, outcome: Outcome, expert_key: str = "") -> None:
        """Log the receipt."""
        del expert_key
        receipt = outcome.receipt
        summary, *_ = receipt_lines(receipt, self._unit)
        self._log.info(
            "job stopped",
            status=str(outcome.status),
            receipt=summary,
            containers=receipt.containers,
            tokens=receipt.usage.total_tokens,
            **({} if receipt.cost is None else {"dollars": round(receipt.cost, 6)}),
            hosts=",".join(receipt.hosts),
            seconds=round(receipt.seconds, 3),
            hops=",".join(f"{hop.expert_key}:{hop.seconds:.3f}" for hop in receipt.hops),
        )


def _clean(value: Any, mask: Callable[[bytes], bytes]) -> Any:
    if not isinstance(value, str):
        return value
    return plain(mask(value.encode("utf-8", "surrogateescape")).decode("utf-8", "replace"))
