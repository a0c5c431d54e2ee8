"""Bodies that a server has compressed, read as they arrive."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.http.response import Response

ACCEPTED = "gzip, deflate"
"""What a request that can read such bodies has in `Accept-Encoding`."""

_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_HEAD = 2
"""Bytes of zlib's header, which is recognized by a checksum (RFC 1950)."""
_MEMBER = b"\x1f"
"""How a member of gzip begins; anything else after the end is ignored."""
_PIECE = 64 * 1024
"""A few bytes can stand for a gigabyte, so no more is decompressed at a time."""


async def decoded(response: Response) -> AsyncGenerator[bytes]:
    """Give the body as it was before its coding. A coding that is unknown here is left as it is.

    Raises:
        ConnectionBrokenError: the connection ended before the body did, or the body does not have its coding, or it has
            several: a few bytes could stand for days of work.
    """
    named = response.headers.get("content-encoding", "").lower().split(",")
    decoders = [decoder for coding in named if (decoder := _decoder(coding.strip())) is not None]
    if len(decoders) > 1:
        message = "the response is compressed more than once"
        raise ConnectionBrokenError(message, answered=True)
    async with aclosing(response.chunks()) as chunks:
        async for chunk in chunks:
            for piece in _pieces(decoders[0], chunk) if decoders else (chunk,):
                yield piece
                # Much may come of one chunk, and a timeout needs a turn of the loop.
                await asyncio.sleep(0)


def _pieces(decoder: "_Decoder | _Deflate", content: bytes) -> Iterator[bytes]:
    try:
        yield from decoder.decode(content)
    except zlib.error as error:
        message = f"the response is not compressed as its head states: {error}"
        raise ConnectionBrokenError(message, answered=True) from error


class _Decoder:
    """gzip, as any number of members after one another."""

    def __init__(self, bits: int = _GZIP) -> None:
        self._bits = bits
        self._stream = zlib.decompressobj(bits)

    def decode(self, content: bytes) -> Iterator[bytes]:
        while True:
            if self._stream.eof:
                if not content.startswith(_MEMBER):
                    return
                self._stream = zlib.decompressobj(self._bits)
            piece = self._stream.decompress(content, _PIECE)
            if piece:
                yield piece
            content = self._stream.unconsumed_tail or self._stream.unused_data
            # Without input left, a full piece may have more behind it.
            if not content and len(piece) < _PIECE:
                return


class _Deflate:
    """deflate with or without the header of zlib: servers have always differed (RFC 9110, section 8.4.1.2)."""

    def __init__(self) -> None:
        self._head = b""
        self._decoder: _Decoder | None = None

    def decode(self, content: bytes) -> Iterator[bytes]:
        if self._decoder is None:
            self._head = content = self._head + content
            if len(content) < _ZLIB_HEAD:
                return
            has_head = content[0] & 0x0F == zlib.DEFLATED and int.from_bytes(content[:_ZLIB_HEAD], "big") % 31 == 0
            self._decoder = _Decoder(_ZLIB if has_head else _RAW)
        yield from self._decoder.decode(content)


def _decoder(coding: str) -> _Decoder | _Deflate | None:
    match coding:
        case "gzip" | "x-gzip":
            return _Decoder()
        case "deflate":
            return _Deflate()
        case _:
            return None
