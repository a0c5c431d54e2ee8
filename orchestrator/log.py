"""The package's log: loggers below `orchestrator`, whose records name their job and contain no secret of a running one.

A filter of a logger does not see the records of its children, and a filter of a handler does not change what other
handlers get. So each logger of the package has the filter that masks: it runs before the first handler, also before one
that this package does not know.
"""

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import lru_cache
from itertools import chain
from typing import Any

from orchestrator.wire.masking import hide

_ROOT = "orchestrator"
_JOB: ContextVar[str | None] = ContextVar("job_id", default=None)
_STANDARD = {*vars(logging.makeLogRecord({})), "taskName", "job_id"}
_TRACEBACKS = logging.Formatter()
_LOCK = threading.Lock()


class _Secrets:
    """The secrets of all running jobs: jobs share connections to an engine, so a record of one may quote another."""

    def __init__(self) -> None:
        self._held: list[tuple[str, ...]] = []
        self.all: tuple[str, ...] = ()

    def hold(self, secrets: tuple[str, ...]) -> None:
        with _LOCK:
            self._held.append(secrets)
            self.all = tuple(sorted(set(chain.from_iterable(self._held))))

    def drop(self, secrets: tuple[str, ...]) -> None:
        with _LOCK:
            self._held.remove(secrets)
            self.all = tuple(sorted(set(chain.from_iterable(self._held))))


_SECRETS = _Secrets()
_hide = lru_cache(maxsize=1)(hide)


class _RecordFilter(logging.Filter):
    """Adds `job_id` to each record, and masks it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "job_id"):
            record.job_id = _JOB.get()
        if _SECRETS.all:
            _mask(record, _hide(_SECRETS.all))
        return True


_FILTER = _RecordFilter()


def _mask(record: logging.LogRecord, hidden: Callable[[str], str]) -> None:
    """Turn a record into masked text. Its arguments and its exception go: a handler could read more than their text."""
    record.msg, record.args = hidden(_text(record)), None
    if record.exc_info and not record.exc_text:
        record.exc_text = _TRACEBACKS.formatException(record.exc_info)
    record.exc_info = None
    record.exc_text = record.exc_text and hidden(record.exc_text)
    record.stack_info = record.stack_info and hidden(record.stack_info)
    for name in vars(record).keys() - _STANDARD:
        setattr(record, name, _in_values(getattr(record, name), hidden))


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - as in a handler, a wrong call must not stop the job
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{template} with arguments that do not fit"


def _in_values(value: Any, hidden: Callable[[str], str]) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {_in_values(key, hidden): _in_values(item, hidden) for key, item in value.items()}
        case list() | tuple():
            return [_in_values(item, hidden) for item in value]
    with suppress(Exception):
        return hidden(str(value))
    return None


def get_logger(name: str) -> logging.Logger:
    """Return the logger of the module `name`. That of another package, a plugin, is below `orchestrator` too."""
    is_own = name == _ROOT or name.startswith(f"{_ROOT}.")
    logger = logging.getLogger(name if is_own else f"{_ROOT}.{name}")
    logger.addFilter(_FILTER)
    return logger


_ROOT_LOGGER = get_logger(_ROOT)
# As in other libraries: a program that configures no logging sees nothing.
_ROOT_LOGGER.addHandler(logging.NullHandler())


@contextmanager
def hide_in_log(secrets: Iterable[str]) -> Iterator[None]:
    """Mask `secrets` in all records of this process during the block."""
    held = tuple(secrets)
    _SECRETS.hold(held)
    try:
        yield
    finally:
        _SECRETS.drop(held)


@contextmanager
def mark_records(job_id: str) -> Iterator[None]:
    """Let records name this job during the block, also those of tasks and threads that are started in it."""
    token = _JOB.set(job_id)
    try:
        yield
    finally:
        _JOB.reset(token)


def unmarked_context() -> Context:
    """Return a context for a task that works for several jobs: its records name none."""
    context = copy_context()
    context.run(_JOB.set, None)
    return context


class CallbackHandler(logging.Handler):
    """Calls `report` with the level and text of each record, in the event loop it was created in, if any.

    So `report` can write to what the loop's thread writes to, whichever thread a record comes from.
    """

    def __init__(self, report: Callable[[int, str], None], level: int = logging.DEBUG) -> None:
        super().__init__(level)
        self._report = report
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        try:
            text = self.format(record)
            if self._loop is None or self._thread == threading.get_ident():
                self._report(record.levelno, text)
            else:
                self._loop.call_soon_threadsafe(self._report, record.levelno, text)
        except Exception:  # noqa: BLE001 - as handlers of the standard library do
            self.handleError(record)


class _Attached:
    """Handlers that want records of their level, whatever level the program has set."""

    def __init__(self) -> None:
        self._handlers: list[logging.Handler] = []
        self._configured = logging.NOTSET

    def add(self, handler: logging.Handler) -> None:
        with _LOCK:
            if not self._handlers:
                self._configured = _ROOT_LOGGER.level
            self._handlers.append(handler)
            self._set_level()
            _ROOT_LOGGER.addHandler(handler)

    def remove(self, handler: logging.Handler) -> None:
        with _LOCK:
            _ROOT_LOGGER.removeHandler(handler)
            self._handlers.remove(handler)
            self._set_level()

    def _set_level(self) -> None:
        _ROOT_LOGGER.setLevel(self._configured)
        if self._handlers:
            levels = [each.level or logging.DEBUG for each in self._handlers]
            _ROOT_LOGGER.setLevel(min(_ROOT_LOGGER.getEffectiveLevel(), *levels))


_ATTACHED = _Attached()


@contextmanager
def attach(handler: logging.Handler) -> Iterator[None]:
    """Send the package's records to `handler` during the block, from its level on."""
    _ATTACHED.add(handler)
    try:
        yield
    finally:
        _ATTACHED.remove(handler)


@contextmanager
def pass_to_callbacks(
    note: Callable[[str], None] | None,
    announce: Callable[[str], None] | None,
    selects: Callable[[logging.LogRecord], bool],
    *,
    function: str,
) -> Iterator[None]:
    """Pass on the records that `selects` accepts, as earlier versions of `function` did.

    Details go to `note`, others to `announce`.
    """
    if note is None and announce is None:
        yield
        return
    # The caller is behind the context managers: this one and that of the function.
    warnings.warn(f"{function}(note=, announce=) is now the logger {_ROOT!r}", DeprecationWarning, stacklevel=5)

    def report(level: int, text: str) -> None:
        callback = announce if level >= logging.INFO else note
        if callback is not None:
            callback(text)

    handler = CallbackHandler(report, logging.INFO if note is None else logging.DEBUG)
    handler.addFilter(selects)
    with attach(handler):
        yield
