"""Single files of a volume, and its mode, as an engine sends them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from orchestrator.backends.tar_reader import ArchiveError
from orchestrator.backends.volume_files import make_writable, read_file
from orchestrator.errors import BackendError
from tests.support.far_backend import LINK, FarFiles, FarVolume

CONTENT = bytes(range(256)) * 20


def files(**content: bytes | object) -> FarFiles:
    """A volume with these files, which any user may write."""
    return FarFiles(FarVolume({}, dict(content)), 0o1777)


async def test_a_file_is_read_whole() -> None:
    """However the engine cuts the archive; the limit is the most that it may have."""
    assert await read_file(files(a=CONTENT, b=b""), "a", len(CONTENT)) == CONTENT
    assert await read_file(files(a=CONTENT, b=b""), "b", 0) == b""


@pytest.mark.parametrize("content", [LINK, CONTENT], ids=["link", "larger"])
async def test_what_is_no_small_regular_file_is_refused(content: bytes | object) -> None:
    """A link is not followed, and nothing of a larger file is kept."""
    with pytest.raises(ArchiveError, match=r"is not that of a regular file of at most 5119 bytes"):
        await read_file(files(a=content), "a", len(CONTENT) - 1)


class Torn(FarFiles):
    """An engine that goes away in the middle of an archive."""

    async def read(self, path: str = "") -> AsyncGenerator[bytes, None]:
        """Yield only the beginning."""
        async with aclosing(super().read(path)) as pieces:
            async for piece in pieces:
                yield piece
                return


async def test_half_a_file_is_an_error() -> None:
    """Its beginning does not count as the file."""
    with pytest.raises(ArchiveError, match="ends in the middle"):
        await read_file(Torn(FarVolume({}, {"a": CONTENT}), 0o1777), "a", len(CONTENT))


async def test_a_volume_has_the_mode_of_the_image_s_directory() -> None:
    """One that only its owner may write would fail the install later, with a worse error."""
    await make_writable(files(a=b""), "image:1")
    with pytest.raises(BackendError, match=r"the image image:1 has no directory /workspace that any user may write"):
        await make_writable(FarFiles(FarVolume({}), 0o755), "image:1")
