"""Packages in volumes of an engine that sees no file of this machine: whole or not at all, and found again."""

import asyncio
import fcntl
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest

from orchestrator.errors import BackendError, BackendUnavailableError, PackageError, StoreError
from orchestrator.jobs.workspace_copy import finish_copies
from orchestrator.packages.package_volumes import remove_unrecorded, volume_archives
from orchestrator.packages.shipped import find_shipped, pack
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import Job
from orchestrator.pool.one_off import one_off
from orchestrator.sandbox.api import Exit
from orchestrator.sandbox.naming import DEADLINE, INSTANCE, MANAGED_BY, MANAGER, PACKAGE
from orchestrator.store import Store
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.wire.package import MARKER
from tests.support.far_backend import LINK, FarBackend, FarVolume
from tests.support.packages import INSTALLED, TWO_PACKAGES
from tests.support.scheduling import Worked, whole_job


@dataclass
class Far:
    """A job whose Expert needs two packages, and the engine."""

    one: Worked
    engine: FarBackend

    async def install(self) -> Job:
        """Install what the job needs."""
        return await install_packages(self.one.job, self.engine, self.one.root / "store")

    async def prune(self) -> tuple[str, ...]:
        """Remove volumes as `prune` does."""
        return await remove_unrecorded(self.engine, self.shelf, self.one.job.instance)

    @property
    def shelf(self) -> Path:
        """Where the records are."""
        return self.one.root / "store" / "packages"

    def recorded(self) -> list[str]:
        """The volumes that have a record."""
        return sorted(path.stem for path in self.shelf.glob("*.json"))

    def installer(
        self, content: bytes | object = INSTALLED.to_json(), *, but: str = "", ended: Exit | int = 0
    ) -> Script:
        """A script that writes `content` into the marker of all requested packages `but` one, and ends as given."""

        async def script(guest: Guest) -> Exit | int:
            assigned = await guest.attach()
            assert assigned.install is not None
            for package in assigned.install.packages:
                files = self.engine.store[guest.spec.package_volumes[package.slug]].files
                files["bin/run"] = b"#!"
                if package.name != but:
                    files[MARKER] = content
            return ended

        return script


@asynccontextmanager
async def far() -> AsyncIterator[Far]:
    """Give such a job, whose packages are installed without an error; no Sandbox is left after it."""

    async def nothing(_: Guest) -> int:
        return 1

    async with whole_job(nothing, toml=TWO_PACKAGES, make_backend=FarBackend) as one:
        assert isinstance(one.backend, FarBackend)
        made = Far(one, one.backend)
        made.engine.script = made.installer()
        yield made
        assert one.backend.left == []


async def test_each_package_has_a_volume_that_only_its_install_may_write() -> None:
    """All of a job are installed in one Sandbox; later ones mount them read-only, and no directory of this machine."""
    async with far() as one:
        job = await one.install()
        assert one.recorded() == sorted(one.engine.store) == sorted(job.installed.volumes.values())
        assert job.installed.directory is None
        programs = {fetch.name: program for fetch, program in job.installed.programs.items()}
        assert {name: (program.entry, program.args) for name, program in programs.items()} == {
            "web-server": ("bin/run", ()),
            "time-server": ("bin/run", ("--local",)),
        }
        assert {program.slug for program in programs.values()} == set(job.installed.volumes)
        [spec] = one.engine.launched
        assert (spec.packages, spec.installs) == (None, True)
        for slug, name in job.installed.volumes.items():
            labels = one.engine.store[name].labels
            assert (labels[MANAGED_BY], labels[INSTANCE], labels[PACKAGE]) == (MANAGER, job.instance, slug)
        async with one_off(job, one.engine, seconds=20) as _:
            later = one.engine.launched[-1]
            assert (later.package_volumes, later.installs) == (job.installed.volumes, False)


async def test_what_is_installed_is_not_installed_again() -> None:
    """The second job of the store has the same volumes, and starts no Sandbox."""
    async with far() as one:
        first = await one.install()
        assert (await one.install()).installed == first.installed
        assert len(one.engine.launched) == 1


async def test_another_store_has_its_own_volumes() -> None:
    """Neither the labels nor the records of one store are those of another."""
    async with far() as one:
        first = await one.install()
        one.one.job = replace(one.one.job, instance="another")
        second = await install_packages(one.one.job, one.engine, one.one.root / "other")
        assert set(first.installed.volumes) == set(second.installed.volumes)
        assert set(first.installed.volumes.values()).isdisjoint(second.installed.volumes.values())
        assert await remove_unrecorded(one.engine, one.one.root / "other" / "packages", "another") == ()
        assert len(one.engine.store) == 4


async def test_a_package_whose_volume_is_gone_is_installed_again() -> None:
    """The other one stays as it is."""
    async with far() as one:
        first = (await one.install()).installed.volumes
        lost, kept = first
        del one.engine.store[first[lost]]
        second = (await one.install()).installed.volumes
        assert (second[kept], second[lost] != first[lost]) == (first[kept], True)


async def test_a_volume_that_a_mount_made_does_not_count() -> None:
    """An engine makes one without labels where the volume was removed by hand: it is empty."""
    async with far() as one:
        first = (await one.install()).installed.volumes
        lost = min(first)
        one.engine.store[first[lost]] = FarVolume({})
        assert (await one.install()).installed.volumes[lost] != first[lost]


async def test_two_orchestrators_install_a_package_once() -> None:
    """The second waits for the first, and then finds it there."""
    async with far() as one:
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(one.install()) for _ in range(2)]
        assert both[0].result().installed == both[1].result().installed
        assert len(one.engine.launched) == 1


@pytest.mark.parametrize(
    ("content", "but", "sentence"),
    [
        (INSTALLED.to_json(), "web-server", "package 'web-server' was not installed completely; try again"),
        (INSTALLED.to_json(), "time-server", "package 'time-server' was not installed completely; try again"),
        (b"{", "", "was not installed completely; try again"),
        (b"x" * (1024 * 1024 + 1), "", "was not installed completely; try again"),
        (LINK, "", "was not installed completely; try again"),
        (INSTALLED.with_(entry="../x").to_json(), "", "names a program outside itself: '../x'"),
    ],
    ids=["no marker", "another without", "torn", "too large", "a link", "a program elsewhere"],
)
async def test_all_packages_are_accepted_or_none(content: bytes | object, but: str, sentence: str) -> None:
    """Whatever the Sandbox left, nothing of it counts or stays."""
    async with far() as one:
        one.engine.script = one.installer(content, but=but)
        with pytest.raises(PackageError) as raised:
            await one.install()
        assert str(raised.value).endswith(sentence)
        assert (one.recorded(), one.engine.store) == ([], {})


async def test_an_install_that_fails_leaves_nothing() -> None:
    """Even if it had written all markers before."""
    async with far() as one:
        one.engine.script = one.installer(ended=69)
        with pytest.raises(PackageError, match="the install Sandbox ended"):
            await one.install()
        assert (one.recorded(), one.engine.store) == ([], {})


async def test_a_volume_that_no_user_may_write_is_an_error_before_the_install() -> None:
    """It has the mode of the image's directory."""
    async with far() as one:
        one.engine.mode = 0o755
        with pytest.raises(BackendError, match=r"has no directory /workspace that any user may write"):
            await one.install()
        assert (one.engine.launched, one.engine.store) == ([], {})


async def test_cancelled_an_install_leaves_nothing() -> None:
    """Its volumes are removed after its Sandbox."""
    reached = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.attach()
        reached.set()
        await asyncio.Event().wait()

    async with far() as one:
        one.engine.script = script
        working = asyncio.ensure_future(one.install())
        await reached.wait()
        assert len(one.engine.store) == 2
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        assert (one.recorded(), one.engine.store) == ([], {})


async def test_what_a_lost_connection_left_never_counts_and_is_removed_later() -> None:
    """The error names it; the next install of the package makes new volumes, and removes the old ones."""
    async with far() as one:
        whole = one.engine.script

        async def script(guest: Guest) -> Exit | int | None:
            ended = await whole(guest)
            one.engine.away = True
            return ended

        one.engine.script = script
        with pytest.raises(BackendUnavailableError) as raised:
            await one.install()
        assert raised.value.__notes__ == ["the engine is away"]
        one.engine.away = False
        torn = set(one.engine.store)
        assert (len(torn), one.recorded()) == (2, [])
        one.engine.script = whole
        job = await one.install()
        assert set(one.engine.store) == set(job.installed.volumes.values())
        assert torn.isdisjoint(one.engine.store)


async def test_prune_removes_what_has_no_record() -> None:
    """Half-filled volumes, and those of packages that the user removed from the store; not those that are in use."""
    async with far() as one:
        job = await one.install()
        kept, given_up = sorted(job.installed.volumes.values())
        (one.shelf / f"{given_up}.json").unlink()
        other = FarVolume({INSTANCE: "another", MANAGED_BY: MANAGER, PACKAGE: "p"})
        copy = FarVolume({key: value for key, value in one.engine.store[kept].labels.items() if key != PACKAGE})
        one.engine.store |= {"of another store": other, "copy of a workspace": copy}
        async with one_off(job, one.engine, seconds=20):
            assert await one.prune() == ()
        assert await one.prune() == (given_up,)
        assert set(one.engine.store) == {kept, "of another store", "copy of a workspace"}
        assert await one.prune() == ()


async def test_prune_leaves_what_is_being_installed_alone() -> None:
    """Its lock is held, however long it takes before a Sandbox has the volume."""
    async with far() as one:
        job = await one.install()
        slug, name = min(job.installed.volumes.items())
        (one.shelf / f"{name}.json").unlink()
        with (one.shelf / ".locks" / slug).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert await one.prune() == ()
        assert await one.prune() == (name,)


async def test_prune_removes_the_volumes_of_a_store_that_is_gone() -> None:
    """Nothing is made in its place."""
    async with far() as one:
        job = await one.install()
        one.shelf.rename(one.one.root / "elsewhere")
        assert sorted(await one.prune()) == sorted(job.installed.volumes.values())
        assert not one.shelf.exists()


async def test_a_volume_that_cannot_be_removed_stops_no_other() -> None:
    """The error comes after the others."""
    async with far() as one:
        await one.install()
        for record in one.shelf.glob("*.json"):
            record.unlink()
        refused, other = one.engine.store
        one.engine.kept = {refused}
        with pytest.raises(BackendError, match=f"remove {refused}: volume is in use"):
            await one.prune()
        assert (list(one.engine.store), other in one.engine.store) == ([refused], False)


async def test_packages_are_no_copies_of_a_workspace() -> None:
    """What looks after copies leaves them alone, even long after their install."""
    async with far() as one:
        await one.install()
        for volume in one.engine.store.values():
            volume.labels = {**volume.labels, DEADLINE: "1"}
        store = Store(one.one.root / "store")
        assert await finish_copies(one.engine, store, one.one.job.instance, everything=True) == ()
        assert len(one.engine.store) == 2


async def test_a_damaged_record_is_named() -> None:
    """It is a file of the store as any other."""
    async with far() as one:
        await one.install()
        record = min(one.shelf.glob("*.json"))
        record.write_bytes(b"{")
        with pytest.raises(StoreError, match=f"{record} is damaged"):
            await one.install()


async def test_packages_in_volumes_go_into_an_image(tmp_path: Path) -> None:
    """As those of a directory do: by slug, for all users, without what is no file."""
    async with far() as one:
        job = await one.install()
        async with volume_archives(job, one.engine) as archives:
            content = pack(job.installed, archives)
        assert content is not None
        with tarfile.open(fileobj=BytesIO(content)) as tar:
            tar.extractall(tmp_path, filter="tar")
        found = find_shipped(tmp_path, job.installed.programs)
        assert found.programs == job.installed.programs
        for program in found.programs.values():
            assert (tmp_path / program.slug / program.entry).read_bytes() == b"#!"
        assert len(one.engine.store) == 2
