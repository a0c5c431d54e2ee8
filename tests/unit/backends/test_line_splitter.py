import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.line_splitter import LineSplitter


def split(chunks: list[bytes], limit: int) -> tuple[list[bytes], bytes | None, int]:
    """Feed all chunks and return the results."""
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines, splitter.rest(), splitter.dropped


@pytest.mark.behaviour("G9")
def test_lines_come_whole_from_any_chunks() -> None:
    """A line may span several chunks and a chunk may contain several lines."""
    assert split([b"o", b"ne\ntwo\n\nth", b"ree"], 100) == ([b"one", b"two", b""], b"three", 0)


def test_the_bound_counts_the_newline() -> None:
    """A line of `limit` bytes with its newline is kept; one byte more is dropped."""
    assert split([b"123\n1234\n12\n"], 4) == ([b"123", b"12"], None, 1)


def test_a_dropped_line_takes_no_neighbour_with_it() -> None:
    """Only the long line is missing, wherever chunks end."""
    assert split([b"a\n" + b"x" * 50, b"x" * 50, b"x\nb\n"], 8) == ([b"a", b"b"], None, 1)


def test_an_endless_line_is_counted_once() -> None:
    """A line that never ends is counted once and is not returned by `rest`."""
    assert split([b"x" * 10] * 10, 16) == ([], None, 1)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=8), limit=st.integers(1, 40))
def test_chunk_borders_never_matter(data: bytes, cuts: list[int], limit: int) -> None:
    """The result does not depend on how the stream is cut."""
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(borders)]
    *ends, last = data.split(b"\n")
    kept = [line for line in ends if len(line) < limit]
    dropped = sum(len(line) >= limit for line in [*ends, last])
    assert split(chunks, limit) == (kept, last if 0 < len(last) < limit else None, dropped)
