"""Packages in volumes of a real engine: found by their labels, and read as archives."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.docker.backend import connect
from orchestrator.config.package_command import Fetch
from orchestrator.errors import PackageError
from orchestrator.packages.package_volumes import PackageVolumes, remove_unrecorded, volume_archives
from orchestrator.packages.shipped import pack
from orchestrator.plan.job import InstalledPackages
from orchestrator.sandbox.api import Exit, Reason, User, Volume, VolumeBackend
from orchestrator.wire.package import MARKER, Installed, Package, PackageKind, Program
from tests.support import engine
from tests.support.backend_kinds import docker_place
from tests.support.scheduling import make

pytestmark = [pytest.mark.docker, pytest.mark.on_engines]

WEB = Package(slug="w" * 24, kind=PackageKind.NPM, name="web", spec="web@1")
INSTALLED = Installed(name="web", version="1", entry="bin/run", runs_on_node=True)


WRITE = """
import os, sys, time
names = sorted(os.listdir("/packages"))
try:
    open(f"/packages/{names[0]}/{os.getpid()}-{time.time_ns()}", "x")
except OSError as error:
    sys.exit(f"{names} {error.strerror}")
"""


async def in_one_piece(archive: bytes) -> AsyncIterator[bytes]:
    """Yield an archive."""
    yield archive


def package() -> bytes:
    """An archive of a package with a file, another name of it, a link and a marker."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in (("bin/run", b"#!/bin/sh"), (MARKER, INSTALLED.to_json())):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode = len(data), 1000, 0o700
            archive.addfile(info, io.BytesIO(data))
        for name, kind, target in (("bin/same", tarfile.LNKTYPE, "bin/run"), ("link", tarfile.SYMTYPE, "bin/run")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return content.getvalue()


async def test_a_package_is_checked_recorded_found_and_packed(tmp_path: Path) -> None:
    """As on an engine elsewhere; what has no record is removed, and nothing is left."""
    job = replace(make(tmp_path), image=engine.runtime_image(), instance=f"test-{os.getpid()}")
    directory = tmp_path / "packages"
    directory.mkdir()
    async with connect(os.environ, job.image) as backend:
        place = PackageVolumes(backend, job, directory)
        try:
            async with place.make([WEB]) as room:
                (name,) = room.volumes.values()
                # It exists by now, so the labels of this call do not count.
                async with backend.open_volume(Volume(name, job.image, User(1000, 1000))) as files:
                    await files.write(in_one_piece(package()))
                assert (await place.find([WEB])).installed == {}
            found = await place.find([WEB])
            assert (found.installed, found.mounted.volumes) == ({WEB.slug: INSTALLED}, {WEB.slug: name})
            program = Program(slug=WEB.slug, entry=INSTALLED.entry, runs_on_node=True)
            fetch = Fetch(PackageKind.NPM, "web", "web@1", None, (), ())
            installed = InstalledPackages(programs={fetch: program}, volumes=found.mounted.volumes)
            async with volume_archives(replace(job, installed=installed), backend) as archives:
                packed = pack(installed, archives)
            assert packed is not None
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                archive.extractall(tmp_path / "image", filter="tar")
            unpacked = tmp_path / "image" / WEB.slug
            assert (unpacked / "bin/same").read_bytes() == (unpacked / "link").read_bytes() == b"#!/bin/sh"
            assert await remove_unrecorded(backend, directory, job.instance) == ()
            # Podman lists what has one of several labels.
            assert await backend.volumes({"perstack.ai/package": WEB.slug, "perstack.ai/instance": "another"}) == ()
            assert await remove_unrecorded(backend, directory, "another") == ()
            assert (await place.find([WEB])).mounted.volumes == found.mounted.volumes
        finally:
            for record in directory.glob("*.json"):
                record.unlink()
            removed = await remove_unrecorded(backend, directory, job.instance)
        assert removed == (name,)
        assert await backend.volumes({"perstack.ai/instance": job.instance}) == ()


@pytest.mark.mounted
async def test_only_a_sandbox_that_installs_writes_a_package(tmp_path: Path) -> None:
    """Any user may, no matter who owns the directories of the image; all others find it read-only at the same place."""
    async with docker_place(tmp_path) as place, place.connect(WRITE) as backend:
        assert isinstance(backend, VolumeBackend)
        job = replace(make(tmp_path), image=place.image, instance=place.instance)
        (tmp_path / "packages").mkdir()

        async def install() -> None:
            async with PackageVolumes(backend, job, tmp_path / "packages").make([WEB]) as room:
                first = replace(place.spec(1), package_volumes=room.volumes, installs=True)
                async with backend.launch(first) as sandbox:
                    assert await sandbox.wait() == Exit(0, Reason.COMPLETED)
                async with backend.launch(replace(place.spec(2), package_volumes=room.volumes)) as sandbox:
                    ended = await sandbox.wait()
                assert (ended.code, ended.last_line) == (1, f"['{WEB.slug}'] Read-only file system")

        # It writes no marker.
        with pytest.raises(PackageError, match="package 'web@1' was not installed completely"):
            await install()
        assert await backend.volumes({"perstack.ai/instance": job.instance}) == ()
