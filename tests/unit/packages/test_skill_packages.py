"""Packages of skills: installed once, whole or not at all."""

import asyncio
import fcntl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.registries import Registries
from orchestrator.errors import BackendError, ConfigError, PackageError
from orchestrator.packages import install_locks
from orchestrator.packages import skill_packages as module
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import Job
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.wire.package import MARKER, Installed
from tests.support.log_lines import collect_log
from tests.support.odd_trees import unremovable
from tests.support.packages import INSTALLED, TWO_PACKAGES
from tests.support.scheduling import Worked, turns, whole_job


async def install(one: Worked) -> Job:
    """Install what the job needs."""
    with collect_log(one.announced):
        return await install_packages(one.job, one.backend, one.root / "store")


def shelf(one: Worked) -> Path:
    """Where packages are."""
    return one.root / "store" / "packages"


def on_the_shelf(one: Worked) -> list[str]:
    """What is there: installed packages, and what is left of others."""
    return sorted(path.name for path in shelf(one).iterdir() if path.name != ".locks")


def installer(installed: Installed = INSTALLED, *, but: str | None = None, ended: Exit | int = 0) -> Script:
    """A script that installs all requested packages `but` one; then it ends as given."""

    async def script(guest: Guest) -> Exit | int:
        assigned = await guest.attach()
        assert assigned.install is not None
        assert guest.spec.packages is not None
        for package in assigned.install.packages:
            if package.name != but:
                directory = guest.spec.packages / package.slug
                directory.mkdir()
                (directory / MARKER).write_bytes(installed.to_json())
        return ended

    return script


@asynccontextmanager
async def project(script: Script, toml: str = TWO_PACKAGES) -> AsyncIterator[Worked]:
    """A job whose Expert needs two packages."""
    async with whole_job(script, toml=toml) as one:
        yield one
        assert one.backend.left == []
        assert not one.job.state_root.exists() or list(one.job.state_root.iterdir()) == []


async def test_a_job_without_packages_starts_nothing() -> None:
    """The job is returned unchanged, and no directory is made."""
    async with whole_job() as one:
        assert await install(one) is one.job
        assert one.backend.launched == []
        assert not shelf(one).exists()


async def test_all_packages_of_a_job_are_installed_in_one_sandbox() -> None:
    """Each skill is then started from its own package; the packages are announced before the install."""
    async with project(installer()) as one:
        job = await install(one)
        assert len(one.backend.launched) == 1
        assert sorted(one.announced) == ["installing time-server", "installing web-server"]
        slugs = on_the_shelf(one)
        assert len(slugs) == 2
        assert job.installed.directory == shelf(one)
        # Sandboxes of other users pass through it.
        assert stat.S_IMODE(shelf(one).stat().st_mode) == 0o711
        assert all(
            (program.entry, program.runs_on_node) == ("bin/run", True) for program in job.installed.programs.values()
        )
        assert {fetch.name: program.args for fetch, program in job.installed.programs.items()} == {
            "web-server": (),
            "time-server": ("--local",),
        }
        assert sorted(program.slug for program in job.installed.programs.values()) == slugs


async def test_what_is_installed_is_not_installed_again() -> None:
    """The second job of the store starts no Sandbox."""
    async with project(installer()) as one:
        first = await install(one)
        assert await install(one) == first
        assert len(one.backend.launched) == 1


async def test_a_torn_package_is_installed_again() -> None:
    """Without its marker, which is written last."""
    async with project(installer()) as one:
        job = await install(one)
        torn = next(program.slug for fetch, program in job.installed.programs.items() if fetch.name == "web-server")
        (shelf(one) / torn / MARKER).rename(shelf(one) / torn / "half")
        one.announced.clear()
        assert await install(one) == job
        assert [path.name for path in (shelf(one) / torn).iterdir()] == [MARKER]
        assert one.announced == ["installing web-server"]


async def test_another_image_has_its_own_packages() -> None:
    """What is installed for one interpreter does not run on another."""
    async with project(installer()) as one:
        one.job = replace(one.job, platform="docker")
        await install(one)
        one.job = replace(one.job, image="another:1")
        await install(one)
        assert len(on_the_shelf(one)) == 4


async def test_two_orchestrators_install_a_package_once() -> None:
    """The second waits for the first, and then finds it there."""
    async with project(installer()) as one:
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(install(one)) for _ in range(2)]
        assert both[0].result() == both[1].result()
        assert len(one.backend.launched) == 1


async def test_a_process_that_holds_the_lock_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Sandbox starts before the lock is free."""
    monkeypatch.setattr(install_locks, "_PAUSE", 0.001)
    async with project(installer()) as one:
        await install(one)
        slug = on_the_shelf(one)[0]
        (shelf(one) / slug / MARKER).unlink()
        clock = asyncio.get_running_loop().time
        begun = clock()
        with (shelf(one) / ".locks" / slug).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            waiting = asyncio.ensure_future(install(one))
            # Long enough to check the lock several times.
            await turns(lambda: clock() > begun + 0.02)
            assert len(one.backend.launched) == 1
        await waiting
        assert len(one.backend.launched) == 2


FAILURES = [
    pytest.param(Exit(69, Reason.ERROR, "first\nno such package"), "no such package", id="words"),
    pytest.param(
        Exit(137, Reason.OUT_OF_MEMORY),
        "the install Sandbox ended (out-of-memory, exit code 137); try again",
        id="no words",
    ),
]


@pytest.mark.parametrize(("ended", "sentence"), FAILURES)
async def test_an_install_that_fails_leaves_nothing(ended: Exit, sentence: str) -> None:
    """What it had installed is removed too; the error is the Sandbox's last output."""
    async with project(installer(ended=ended)) as one:
        with pytest.raises(PackageError) as raised:
            await install(one)
        assert str(raised.value) == sentence
        assert on_the_shelf(one) == []


async def test_of_several_packages_all_are_accepted_or_none() -> None:
    """One that is not whole keeps the others out."""
    async with project(installer(but="web-server")) as one:
        with pytest.raises(PackageError) as raised:
            await install(one)
        assert str(raised.value) == "package 'web-server' was not installed completely; try again"
        assert on_the_shelf(one) == []


@pytest.mark.parametrize("content", [b"{", b"[]", b"x" * (1024 * 1024 + 1)], ids=["torn", "no record", "too large"])
async def test_a_marker_that_is_none_is_not_accepted(content: bytes) -> None:
    """A Sandbox may write anything there."""

    async def script(guest: Guest) -> int:
        ended = await installer()(guest)
        assert guest.spec.packages is not None
        for marker in guest.spec.packages.glob(f"*/{MARKER}"):
            marker.write_bytes(content)
        assert ended == 0
        return 0

    async with project(script) as one:
        with pytest.raises(PackageError, match="was not installed completely; try again"):
            await install(one)
        assert on_the_shelf(one) == []


async def test_a_link_in_place_of_a_package_is_not_accepted() -> None:
    """It could lead to anything on the host."""

    async def script(guest: Guest) -> int:
        assigned = await guest.attach()
        assert assigned.install is not None
        assert guest.spec.packages is not None
        elsewhere = guest.spec.packages / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / MARKER).write_bytes(INSTALLED.to_json())
        for package in assigned.install.packages:
            (guest.spec.packages / package.slug).symlink_to(elsewhere)
        return 0

    async with project(script) as one:
        with pytest.raises(PackageError, match="was not installed completely; try again"):
            await install(one)
        assert on_the_shelf(one) == []


@pytest.mark.parametrize("entry", ["/bin/sh", "../other/run"])
async def test_a_program_outside_of_its_package_is_not_accepted(entry: str) -> None:
    """The error names it."""
    async with project(installer(INSTALLED.with_(entry=entry))) as one:
        with pytest.raises(PackageError) as raised:
            await install(one)
        assert str(raised.value).endswith(f"names a program outside itself: {entry!r}")
        assert on_the_shelf(one) == []


async def test_an_install_that_takes_too_long_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what to check."""
    monkeypatch.setattr(module, "INSTALL_SECONDS", 0)

    async def script(guest: Guest) -> None:
        await guest.attach()
        await asyncio.Event().wait()

    async with project(script) as one:
        with pytest.raises(PackageError) as raised:
            await install(one)
        first, second = sorted(("time-server", "web-server"), key=str(raised.value).index)
        assert str(raised.value) == (
            f"installing {first}, {second} took longer than 0 s; look at the registry, then try again"
        )
        assert on_the_shelf(one) == []


async def test_a_sandbox_that_cannot_be_launched_is_the_error() -> None:
    """It is the backend's sentence, unchanged."""

    async def starting(_: SandboxSpec) -> None:
        message = "the engine is on fire"
        raise BackendError(message)

    async with project(installer()) as one:
        one.backend.starting = starting
        with pytest.raises(BackendError, match=r"^the engine is on fire$"):
            await install(one)
        assert on_the_shelf(one) == []


async def test_a_registry_without_tls_is_refused() -> None:
    """The error comes before any Sandbox starts."""
    async with project(installer()) as one:
        one.job = replace(one.job, registries=Registries(npm="http://registry.example.com/"))
        with pytest.raises(ConfigError, match=r"registry\.example\.com"):
            await install(one)
        assert one.backend.launched == []


async def test_cancelled_an_install_leaves_nothing() -> None:
    """And the next one installs."""
    reached = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.attach()
        reached.set()
        await asyncio.Event().wait()

    async with project(script) as one:
        working = asyncio.ensure_future(install(one))
        await reached.wait()
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        assert on_the_shelf(one) == []
        one.backend.script = installer()
        await install(one)
        assert len(on_the_shelf(one)) == 2


async def test_what_a_killed_orchestrator_left_is_removed_first() -> None:
    """Whatever is in the directory in which it installed is not taken for installed."""
    async with project(installer()) as one:
        job = await install(one)
        slug = min(program.slug for program in job.installed.programs.values())
        left = shelf(one) / f".installing-{slug}"
        (left / slug).mkdir(parents=True)
        (left / slug / "old").touch()
        (shelf(one) / slug / MARKER).unlink()
        await install(one)
        assert [path.name for path in (shelf(one) / slug).iterdir()] == [MARKER]
        assert len(on_the_shelf(one)) == 2


async def test_what_cannot_be_removed_is_reported_and_another_directory_used() -> None:
    """Root's container left it, for example: the install continues in another directory."""
    async with project(installer()) as one:
        job = await install(one)
        slug = min(program.slug for program in job.installed.programs.values())
        left = shelf(one) / f".installing-{slug}"
        left.mkdir()
        (left / "file").touch()
        (shelf(one) / slug / MARKER).unlink()
        with unremovable(left / "file"):
            assert await install(one) == job
        assert one.announced[-1] == (
            f"{left} is left over and cannot be removed: Operation not permitted; "
            "remove it with rm -rf, as root if needed"
        )
        packages = one.backend.launched[-1].packages
        assert packages is not None
        assert packages.name.startswith(f"{left.name}-")
        assert not packages.exists()


async def test_only_the_experts_that_are_named_are_provided_for() -> None:
    """An Expert that needs nothing gets nothing."""
    toml = f"{TWO_PACKAGES}\n[experts.bare]\ninstruction = 'Do.'\n"
    async with project(installer(), toml) as one:
        bare = one.job.config.expert("bare")
        with collect_log(one.announced):
            job = await install_packages(one.job, one.backend, one.root / "store", [bare])
        assert job is one.job
        assert one.announced == []
