import asyncio
import io
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Never

import pytest

import orchestrator
from orchestrator import log
from orchestrator.aio import in_thread
from orchestrator.log import CallbackHandler, attach, get_logger, hide_in_log, mark_records, unmarked_context
from tests.support.log_lines import collect_log

SECRET = "sk-canary-123456"
RECORD = {"msg": "so", "levelno": logging.INFO}
MASKED = "the key is [masked]"
LOGGER = get_logger("orchestrator.pool.pool")


class Kept(logging.Handler):
    """A handler of another library: it keeps the records themselves, as an error tracker does."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, and its text as a file would have it."""
        self.records.append(record)
        self.lines.append(self.format(record))


@pytest.fixture
def foreign() -> Iterator[Kept]:
    """A handler of the root logger that the package does not know."""
    kept, package = Kept(), logging.getLogger("orchestrator")
    before = package.level
    logging.getLogger().addHandler(kept)
    package.setLevel(logging.DEBUG)
    yield kept
    package.setLevel(before)
    logging.getLogger().removeHandler(kept)


class Refusal:
    """What an engine's client raises or returns: the secret is in an attribute, not only in the text."""

    def __init__(self) -> None:
        self.key = SECRET

    def __str__(self) -> str:
        return f"refused {SECRET}"


class Unprintable:
    """An object without a text."""

    def __str__(self) -> Never:
        raise ValueError


@pytest.mark.parametrize(
    ("say", "line"),
    [
        (lambda: LOGGER.debug(MASKED.replace("[masked]", SECRET)), MASKED),
        (lambda: LOGGER.info("the key is %s", SECRET), MASKED),
        (lambda: LOGGER.info("the key is %(key)s", {"key": SECRET}), MASKED),
        (lambda: LOGGER.warning("the key is %r", SECRET), "the key is '[masked]'"),
        (lambda: LOGGER.info("it was %s", Refusal()), "it was refused [masked]"),
        (lambda: LOGGER.info("only %.2s of it", SECRET), "only sk of it"),
        (lambda: LOGGER.info(Refusal()), "refused [masked]"),
        (lambda: LOGGER.info("100 % %s", SECRET), "100 % %s with arguments that do not fit"),
        (lambda: LOGGER.info("%s", Unprintable()), "%s with arguments that do not fit"),
        (lambda: LOGGER.info("so", extra={"key": SECRET}), "so"),
        (lambda: LOGGER.info("so", extra={"sent": {"keys": [1, (SECRET, None)], SECRET: Refusal()}}), "so"),
        (lambda: LOGGER.info("so", extra={"odd": Unprintable()}), "so"),
        (lambda: logging.LoggerAdapter(LOGGER, {"key": SECRET}).info("the key is %s", SECRET), MASKED),
        (lambda: get_logger("orchestrator").info("the key is %s", SECRET), MASKED),
        (lambda: get_logger("plugin.backend").info("the key is %s", SECRET), MASKED),
        (lambda: LOGGER.handle(logging.makeLogRecord(RECORD | {"stack_info": SECRET})), "so\n[masked]"),
        (lambda: LOGGER.handle(logging.makeLogRecord(RECORD | {"exc_text": SECRET})), "so\n[masked]"),
        (lambda: LOGGER.info(Unprintable()), "Unprintable with arguments that do not fit"),
    ],
    ids=[
        "text",
        "argument",
        "mapping",
        "repr",
        "object",
        "cut",
        "object-as-message",
        "wrong-arguments",
        "unprintable",
        "extra",
        "nested-extra",
        "unprintable-extra",
        "adapter",
        "package",
        "plugin",
        "stack",
        "traceback",
        "unprintable-message",
    ],
)
def test_no_handler_gets_a_secret(foreign: Kept, say: Callable[[], None], line: str) -> None:
    """Neither in the text, nor in any attribute of the record, also of objects that were logged."""
    with hide_in_log((SECRET,)):
        say()
    assert foreign.lines == [line]
    (record,) = foreign.records
    assert SECRET not in repr(vars(record))
    assert not any(isinstance(value, Refusal) for value in vars(record).values())
    assert (record.args, record.exc_info) == (None, None)


def test_no_handler_gets_a_secret_of_an_error(foreign: Kept) -> None:
    """The traceback stays as masked text; the exception goes, since its frames have the secret in their variables."""
    with hide_in_log((SECRET,)):
        try:
            int(SECRET)
        except ValueError:
            LOGGER.exception("it failed", stack_info=True)
    (record,) = foreign.records
    assert foreign.lines[0].startswith("it failed\nTraceback (most recent call last):\n")
    assert ": '[masked]'\nStack (most recent call last):\n" in foreign.lines[0]
    assert record.exc_info is None
    assert SECRET not in repr(vars(record))


def test_a_record_without_secrets_is_left_as_it_is(foreign: Kept) -> None:
    """An error tracker groups by the template, and shows the exception."""
    error = ValueError()
    LOGGER.info("%s of %s", 1, 2, exc_info=error)
    (record,) = foreign.records
    assert (record.msg, record.args) == ("%s of %s", (1, 2))
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_secrets_are_masked_until_the_last_job_that_has_them_ends(foreign: Kept) -> None:
    """Jobs share secrets, and a record of one job may contain another's."""
    first, second = hide_in_log((SECRET, "sk-other-123456")), hide_in_log((SECRET,))
    first.__enter__()
    with second:
        LOGGER.info("%s sk-other-123456", SECRET)
        first.__exit__(None, None, None)
        LOGGER.info("%s sk-other-123456", SECRET)
    LOGGER.info("%s", SECRET)
    assert foreign.lines == ["[masked] [masked]", "[masked] sk-other-123456", SECRET]


def test_every_logger_of_the_package_masks() -> None:
    """A module of the host takes its logger from `get_logger`: another one would not mask."""
    package = Path(orchestrator.__file__).parent
    host = [path for path in package.rglob("*.py") if package / "runtime" not in path.parents]
    sources = {path: path.read_text() for path in host if path != Path(log.__file__)}
    assert [path for path, text in sources.items() if "getLogger" in text] == []
    makers = [path for path, text in sources.items() if "get_logger(" in text]
    assert len(makers) > 9
    assert all("_log = get_logger(__name__)\n" in sources[path] for path in makers)


def test_without_a_handler_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """As with other libraries: a program that configures no logging sees no line, no warning either."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        LOGGER.warning("left over")
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


async def test_a_record_names_the_job_that_it_belongs_to(foreign: Kept) -> None:
    """Tasks and threads that a job starts belong to it, except a task that serves several jobs."""

    async def work() -> None:
        LOGGER.info("task")
        await in_thread(lambda: LOGGER.info("thread of ours"))
        await asyncio.to_thread(LOGGER.info, "thread of asyncio")

    async def serve() -> None:
        LOGGER.info("shared")

    with mark_records("j1"):
        task, shared = asyncio.create_task(work()), asyncio.create_task(serve(), context=unmarked_context())
        LOGGER.info("other", extra={"job_id": "j2"})
    LOGGER.info("outside")
    await asyncio.gather(task, shared)
    found = {line: record.__dict__["job_id"] for line, record in zip(foreign.lines, foreign.records, strict=True)}
    assert found == {
        "other": "j2",
        "outside": None,
        "shared": None,
        "task": "j1",
        "thread of ours": "j1",
        "thread of asyncio": "j1",
    }


async def test_a_callback_is_called_in_the_loop() -> None:
    """Whichever thread logs: a status line may be written by one thread only."""
    threads = []
    with attach(CallbackHandler(lambda _, text: threads.append((text, threading.get_ident())))):
        LOGGER.info("here")
        await in_thread(lambda: LOGGER.info("there"))
    assert threads == [("here", threading.get_ident()), ("there", threading.get_ident())]


def test_without_a_loop_a_callback_is_called_at_once() -> None:
    """A command may log before and after its loop."""
    lines: list[str] = []
    with collect_log(lines):
        LOGGER.info("here")
        thread = threading.Thread(target=LOGGER.info, args=("there",))
        thread.start()
        thread.join()
    assert lines == ["here", "there"]


def test_a_callback_that_fails_does_not_stop_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with handlers of the standard library, the failure is printed."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)

    def tell(_: int, text: str) -> None:
        raise OSError(text)

    with attach(CallbackHandler(tell)):
        LOGGER.info("here")
    assert "OSError: here" in stderr.getvalue()


def test_a_handler_gets_its_level_whatever_the_program_has_set() -> None:
    """The program's own level returns when the last handler is gone, in whatever order they go."""
    package = logging.getLogger("orchestrator")
    before = package.level
    package.setLevel(logging.ERROR)
    try:
        first, second = attach(CallbackHandler(print, logging.DEBUG)), attach(CallbackHandler(print, logging.INFO))
        first.__enter__()
        second.__enter__()
        levels = [package.level]
        first.__exit__(None, None, None)
        levels.append(package.level)
        second.__exit__(None, None, None)
        assert [*levels, package.level] == [logging.DEBUG, logging.INFO, logging.ERROR]
        package.setLevel(logging.DEBUG)
        with attach(CallbackHandler(print, logging.INFO)):
            assert package.level == logging.DEBUG
    finally:
        package.setLevel(before)
    assert all(isinstance(each, logging.NullHandler) for each in package.handlers)
    assert log.get_logger("orchestrator") is package
