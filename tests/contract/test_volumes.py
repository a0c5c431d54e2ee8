"""What a Docker engine does with volumes and with files of this machine, asked as jobs ask it."""

import asyncio
import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.backends.docker.backend import DockerBackend, connect
from orchestrator.errors import BackendError
from orchestrator.sandbox.api import Sharing, User, Volume
from tests.support import engine, folding_share
from tests.support.second_engine import second_engine

pytestmark = pytest.mark.docker

LABELS = {"perstack.ai/test-of-volumes": str(os.getpid())}
EVERYONE = 0o777


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of this test's own that remembers answers."""
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state


@asynccontextmanager
async def backend() -> AsyncIterator[DockerBackend]:
    """The backend for the engine of the tests."""
    async with connect(os.environ, engine.runtime_image()) as found:
        yield found


def left(place: Path) -> list[str]:
    """What probes left in a directory, and their containers."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", "label=perstack.ai/part=probe"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    return [*(path.name for path in place.iterdir() if "probe" in path.name), *listed.stdout.split()]


async def test_files_cross_to_an_engine_of_this_machine_and_that_is_remembered(tmp_path: Path, own_state: Path) -> None:
    """The second question costs the engine nothing: an answer that was changed by hand is given as it is."""
    async with backend() as found:
        first = await found.share(tmp_path / "absent" / "workspace")
        assert first.sharing is Sharing.EXACT
        assert left(tmp_path) == []
        (remembered,) = (own_state / "perstack-orch/shares").iterdir()
        remembered.write_text("none")
        assert (await found.share(tmp_path / "workspace")).sharing is Sharing.NONE
        remembered.write_text("nonsense")
        assert (await found.share(tmp_path / "workspace")) == first


@pytest.mark.usefixtures("own_state")
@pytest.mark.skipif(not folding_share.possible(), reason="no exfat-fuse, exfatprogs or loop device here")
async def test_a_share_that_takes_other_spellings_is_found(tmp_path: Path) -> None:
    """A file system in a program, as desktop products have it."""
    with folding_share.folding_share(tmp_path) as share:
        async with backend() as found:
            assert (await found.share(share / "workspace")).sharing is Sharing.FOLDED
        assert left(share) == []


@pytest.mark.usefixtures("own_state")
@pytest.mark.disturbing
async def test_an_engine_elsewhere_sees_no_files_and_has_volumes(tmp_path: Path) -> None:
    """Nothing of this machine's is mounted, and an archive goes in and out by the engine's API alone."""
    root = Path("/var/lib") / f"perstack-test-{os.getpid()}"
    async with (
        second_engine(root, hidden=tmp_path) as far,
        connect({"DOCKER_HOST": far.address}, engine.runtime_image()) as found,
    ):
        assert (await found.share(tmp_path / "workspace")).sharing is Sharing.NONE
        await fill_and_read(found)


async def test_a_volume_is_filled_read_and_removed() -> None:
    """Its directory may be written by any user; what goes in comes out; nothing of it is left."""
    async with backend() as found:
        await fill_and_read(found)
        assert await found.volumes(LABELS) == ()
        with pytest.raises(BackendError, match="could not"):
            async with found.open_volume(volume("x", image="no-such-image:1")):
                pass
        await found.remove_volume(volume("x").name)


def volume(name: str, image: str = "") -> Volume:
    """A volume of this test's."""
    return Volume(f"perstack-test-{os.getpid()}-{name}", image or engine.runtime_image(), User(1000, 1000), LABELS)


async def fill_and_read(found: DockerBackend) -> None:
    """Fill a volume, read it back, list it and remove it."""
    wanted = volume("w")
    try:
        async with found.open_volume(wanted) as files:
            await files.write(archived({"a": b"1", "d/b": bytes(3 * 1024 * 1024), "\udcff": b"odd"}))
            data = b"".join([piece async for piece in files.read()])
            (listed,) = await found.volumes(LABELS)
            assert (listed.name, len(listed.users)) == (wanted.name, 1)
            with pytest.raises(BackendError):
                await found.remove_volume(wanted.name)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = {member.name: member for member in archive.getmembers()}
        assert members["workspace"].mode & EVERYONE == EVERYONE
        assert {name: member.size for name, member in members.items() if member.isfile()} == {
            "workspace/a": 1,
            "workspace/d/b": 3 * 1024 * 1024,
            "workspace/\udcff": 3,
        }
        assert {member.uid for name, member in members.items() if name != "workspace"} == {1000}
        assert [found.users for found in await found.volumes({}, wanted.name)] == [{}]
    finally:
        await found.remove_volume(wanted.name)
    await found.remove_volume(wanted.name)


async def archived(files: dict[str, bytes]) -> AsyncIterator[bytes]:
    """Yield an archive of these files, in pieces."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        directory = tarfile.TarInfo("d")
        directory.type, directory.uid, directory.gid = tarfile.DIRTYPE, 1000, 1000
        archive.addfile(directory)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(content), 1000, 1000
            archive.addfile(info, io.BytesIO(content))
    data = file.getvalue()
    for start in range(0, len(data), 100_000):
        await asyncio.sleep(0)
        yield data[start : start + 100_000]
