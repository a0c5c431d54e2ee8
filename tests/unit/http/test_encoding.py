"""Compressed bodies, over the parser of responses alone."""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.http import encoding
from orchestrator.http.encoding import decoded
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.http.response import Response


def raw_deflate(content: bytes) -> bytes:
    """Compress without the header of zlib, as some servers do."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def flushed(content: bytes) -> bytes:
    """Compress so that each byte can be read as soon as it has arrived."""
    stream = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    pieces = [
        stream.compress(content[index : index + 1]) + stream.flush(zlib.Z_SYNC_FLUSH) for index in range(len(content))
    ]
    return b"".join((*pieces, stream.flush()))


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, flushed": ("GZip", flushed),
    "two members of gzip": ("x-gzip", lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:])),
    "gzip with padding": ("gzip", lambda content: gzip.compress(content) + bytes(9)),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
    "unknown": ("zstd", bytes),
}


def response(coding: str | None, chunks: Sequence[bytes]) -> Response:
    """Return a response whose body arrives in chunks."""
    events = iter([*(h11.Data(data=chunk) for chunk in chunks), h11.EndOfMessage()])

    async def next_event() -> Any:
        return next(events)

    read: Callable[[], Awaitable[Any]] = next_event
    return Response(200, {} if coding is None else {"content-encoding": coding}, read)


async def read(coding: str | None, *chunks: bytes) -> bytes:
    """Return the decoded body."""
    return b"".join([piece async for piece in decoded(response(coding, chunks))])


@pytest.mark.parametrize("name", CODINGS)
@given(st.binary(), st.data())
async def test_each_coding_is_read_wherever_it_is_cut(name: str, content: bytes, data: st.DataObject) -> None:
    """The pieces are those of the network and not of the coding."""
    coding, compress = CODINGS[name]
    body = compress(content)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=9)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert await read(coding, *pieces) == content


async def test_a_body_without_a_coding_is_as_it_is() -> None:
    """Nothing is buffered."""
    pieces = [piece async for piece in decoded(response(None, [b"a", b"b"]))]
    assert pieces == [b"a", b"b"]


async def test_a_piece_can_be_read_before_the_next() -> None:
    """A stream of events would stop otherwise."""
    stream = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first = stream.compress(b"data: a\n\n") + stream.flush(zlib.Z_SYNC_FLUSH)
    assert await anext(decoded(response("gzip", [first, stream.flush()]))) == b"data: a\n\n"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_what_is_not_compressed_is_a_broken_response(coding: str) -> None:
    """A gateway may forget to take the header away."""
    with pytest.raises(ConnectionBrokenError, match="is not compressed as its head states") as caught:
        await read(coding, b"data: a\n\n")
    assert (caught.value.sent, caught.value.answered) == (True, True)


async def test_a_body_that_is_compressed_twice_is_refused() -> None:
    """A hundred bytes could stand for gigabytes."""
    with pytest.raises(ConnectionBrokenError, match="is compressed more than once"):
        await read("deflate, gzip", gzip.compress(zlib.compress(b"data: a\n\n")))


async def test_a_timeout_ends_what_a_few_bytes_stand_for() -> None:
    """The event loop has a turn after each piece."""
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            async for piece in decoded(response("gzip", [bomb])):
                seen += len(piece)
    assert 0 < seen < 100 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, 64 * 1000])
async def test_a_small_body_that_becomes_large_comes_in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """No piece is larger than the limit, and none is lost at it."""
    monkeypatch.setattr(encoding, "_PIECE", 64)
    content = bytes(size)
    pieces = [piece async for piece in decoded(response("gzip", [gzip.compress(content)]))]
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= 64 for piece in pieces)
