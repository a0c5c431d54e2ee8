"""Packages that go into an image, and are found there."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from orchestrator.config.package_command import Fetch
from orchestrator.errors import PackageError
from orchestrator.packages.shipped import find_shipped, pack
from orchestrator.plan.job import InstalledPackages
from orchestrator.wire.package import PackageKind, Program

WEB = Fetch(PackageKind.NPM, "web", "web@1.0.0", None, (), ("--fast",))
TIME = Fetch(PackageKind.PYPI, "time", "time==2", "now", ("zone",))


@pytest.fixture
def installed(tmp_path: Path) -> InstalledPackages:
    """Two installed packages, as a Sandbox leaves them."""
    directory = tmp_path / "packages"
    (directory / "web" / "bin").mkdir(parents=True, mode=0o700)
    (directory / "web" / "bin" / "run").write_text("#!/bin/sh\n")
    (directory / "web" / "bin" / "run").chmod(0o4700)
    (directory / "web" / "run").symlink_to("bin/run")
    (directory / "web" / "private").touch(mode=0o600)
    os.mkfifo(directory / "web" / "pipe")
    (directory / "time").mkdir()
    (directory / "unused").mkdir()
    programs = {
        WEB: Program(slug="web", entry="bin/run", runs_on_node=True, args=("--fast",)),
        TIME: Program(slug="time", entry="now"),
    }
    return InstalledPackages(directory, programs)


def unpacked(installed: InstalledPackages, directory: Path) -> Path:
    """Unpack what was packed, as a build does."""
    content = pack(installed)
    assert content is not None
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(directory, filter="tar")
    return directory


def test_what_is_packed_is_found_again(installed: InstalledPackages, tmp_path: Path) -> None:
    """Each package has the same program; its arguments are those that perstack.toml has now."""
    directory = unpacked(installed, tmp_path / "image")
    assert find_shipped(directory, (WEB, TIME)) == InstalledPackages(directory, installed.programs)
    other = Fetch(PackageKind.NPM, "web", "web@1.0.0", None, (), ("--slow",))
    assert find_shipped(directory, (other,)).programs[other].args == ("--slow",)


def test_all_users_may_read_it_and_none_may_change_it(installed: InstalledPackages) -> None:
    """Owner, modes and times do not come from the Sandbox; pipes and packages of other Experts stay out."""
    content = pack(installed)
    assert content is not None
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = {entry.name: entry for entry in tar.getmembers()}
    assert sorted(entries) == [
        *("programs.json", "time", "web", "web/bin", "web/bin/run", "web/private", "web/run"),
    ]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, 0, "", 0)}
    assert [entries[name].mode for name in ("web/bin", "web/bin/run", "web/private")] == [0o755, 0o755, 0o644]
    assert entries["web/run"].linkname == "bin/run"


def test_without_packages_there_is_no_archive(tmp_path: Path) -> None:
    """An Expert without packages needs none."""
    assert pack(InstalledPackages()) is None
    assert pack(InstalledPackages(tmp_path, {})) is None


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_a_directory_without_packages_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """The sentence names the directory and the option."""
    if content is not None:
        (tmp_path / "programs.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"has no packages of an image .* leave --packages out"):
        find_shipped(tmp_path, (WEB,))


def test_a_package_that_is_not_inside_is_named(installed: InstalledPackages, tmp_path: Path) -> None:
    """Another version counts as another package."""
    directory = unpacked(installed, tmp_path / "image")
    newer = Fetch(PackageKind.NPM, "web", "web@2.0.0", None, (), ())
    with pytest.raises(PackageError, match=r"package 'web@2\.0\.0' is not in .*; build the image again"):
        find_shipped(directory, (newer,))
