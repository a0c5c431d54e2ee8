import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.docker.logs import LogLines, LogStream, text_of


def frame(stream: int, payload: bytes) -> bytes:
    """Return a frame as the engine writes it."""
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def read(log: bytes, cuts: list[int], limit: int = 1000) -> tuple[list[bytes], bytes | None, str]:
    """Feed a log cut at `cuts`."""
    found = LogLines(limit)
    borders = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    lines = [line for start, end in itertools.pairwise(borders) for line in found.feed(log[start:end])]
    return lines, found.rest(), found.fault


@given(cuts=st.lists(st.integers(0, 90), max_size=12))
def test_stdout_is_separated_from_stderr_at_any_cut(cuts: list[int]) -> None:
    """A line may span frames, with frames of stderr between them and headers split at any byte."""
    log = frame(1, b"one\ntw") + frame(2, b"oops\n") + frame(1, b"") + frame(1, b"o\nthr") + frame(1, b"ee")
    assert read(log, cuts) == ([b"one", b"two"], b"three", "")


def test_a_fault_of_the_engine_ends_the_log() -> None:
    """Stream 3 carries the engine's own error and no line; the incomplete line before it is dropped."""
    log = frame(1, b"one\nbeg") + frame(3, b"Error grabbing logs: EOF") + frame(1, b"un\n")
    assert read(log, [20]) == ([b"one"], None, "Error grabbing logs: EOF")


def test_what_is_no_log_is_a_fault() -> None:
    """Bytes without frames are refused, not read as a gigantic frame."""
    assert read(b"HTTP/1.1 500 oops", []) == ([], None, "not a log stream: 72 is not a valid LogStream")


def test_text_of_one_stream() -> None:
    """The tail of stderr contains nothing of stdout."""
    assert text_of(frame(2, b"a\xff") + frame(1, b"no") + frame(2, b"b"), LogStream.STDERR) == "a\ufffdb"
