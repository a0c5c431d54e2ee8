"""The registry of directories that were mounted as a workspace."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.disk.caller import known_state_homes, own_uids, state_home
from orchestrator.disk.mount_registry import mounted_above, mounted_on, record_mount
from orchestrator.disk.path_trail import follow
from orchestrator.errors import ConfigError
from tests.support.other_user import as_user
from tests.support.traces import outside_directory
from tests.unit.disk.test_path_trail import in_bind_mount

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")
OTHER = 4242


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the caller's state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return tmp_path / "state"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a directory with subdirectories."""
    (tmp_path / "site" / "src" / "deep").mkdir(parents=True)
    return tmp_path / "site"


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may pass, with a `site` in it."""
    with outside_directory() as path:
        path.chmod(0o755)
        (path / "site" / "src").mkdir(parents=True)
        yield path


def found(path: Path) -> Path | None:
    """Return the mounted workspace that contains a path, if any."""
    return mounted_above(follow(path).above)


def test_what_was_mounted_is_known_and_all_below_it(site: Path) -> None:
    """The workspace and all below it are known; directories above it and next to it are not."""
    assert found(site) is None
    record_mount(site)
    (site.parent / "site2").mkdir()
    (site / "src" / "file").touch()
    assert [
        found(path) for path in (site, site / "src", site / "src" / "deep", site / "src" / "file", site / "absent")
    ] == [site] * 5
    assert [found(path) for path in (site.parent, site.parent / "site2", Path("/"))] == [None] * 3


def test_it_is_known_by_every_other_name(site: Path, tmp_path: Path) -> None:
    """It is known through links, with `..`, after a move, and inside another directory."""
    record_mount(site)
    (tmp_path / "link").symlink_to(site / "src")
    assert found(tmp_path / "link" / "deep") == site
    assert found(site / "src" / ".." / "src") == site
    (tmp_path / "around").mkdir()
    moved = site.rename(tmp_path / "around" / "moved")
    assert found(moved / "src") == moved
    assert found(tmp_path / "link") is None, "it leads nowhere now"


def test_a_bind_mount_of_it_or_of_a_part_is_known(site: Path, tmp_path: Path) -> None:
    """A bind mount of the whole has the same inode; for one of a part, its origin is known."""
    record_mount(site)
    for name in ("src", "."):
        at = tmp_path / f"at-{name}"
        in_bind_mount(site / name, at, lambda at=at: _is(found(at), at, site))  # type: ignore[misc]


def _is(workspace: Path | None, *expected: Path) -> None:
    assert workspace in expected


def test_a_directory_in_its_place_is_refused_and_one_with_its_inode_is_not(site: Path, tmp_path: Path) -> None:
    """A path counts even with another inode, as disks may be renumbered; an inode counts only with its generation."""
    if follow(site).above[-1].generation is None:
        pytest.skip("this file system has no generations")
    inode = site.stat().st_ino
    record_mount(site)
    shutil.rmtree(site)
    for number in range(4096):
        fresh = tmp_path / f"fresh{number}"
        fresh.mkdir()
        if fresh.stat().st_ino == inode:
            break
    else:
        pytest.skip("this file system used another inode")
    assert found(fresh) is None
    site.mkdir()
    assert found(site) == site


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_system_that_is_mounted_later_is_another(tmp_path: Path) -> None:
    """The roots of all tmpfs have one inode number, and device numbers are soon reused."""
    devices = list[int]()
    for number in range(40):
        # Each at a separate path: the same path is the same workspace.
        disk = tmp_path / f"disk-{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)  # noqa: S607 # wherever it is
        try:
            assert found(disk) is None
            record_mount(disk)
            assert found(disk) == disk
            devices.append(disk.stat().st_dev)
        finally:
            subprocess.run(["umount", disk], check=True)  # noqa: S607 # wherever it is
    assert len(set(devices)) < len(devices), "no number was used again, so this shows nothing"


def test_it_reports_by_which_workspace_and_how(site: Path, tmp_path: Path) -> None:
    """A file in a workspace and a file behind a link in one are described differently."""
    record_mount(site)
    (site / "out").symlink_to(tmp_path)
    why = f"{site}, which was mounted as a workspace, so an Expert may have"
    assert mounted_on(follow(site / "src")) == f"is in {why} written it"
    assert mounted_on(follow(site / "out" / "x")) == f"is reached through the link {site / 'out'} in {why} made it"
    assert mounted_on(follow(tmp_path)) is None


def test_to_record_again_or_at_once_is_the_same(site: Path, state: Path) -> None:
    """Many processes may record the same workspace at once."""
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(record_mount, [site] * 64))
    place = state / "perstack-orch" / "mounted"
    names = set(place.iterdir())
    assert len(names) in {2, 3}
    record_mount(site)
    assert set(place.iterdir()) == names
    assert found(site) == site


def test_it_takes_no_time(site: Path) -> None:
    """A record and a lookup together take less than 2 ms."""
    record_mount(site)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        record_mount(site)
        assert found(site / "src") == site
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.002


@pytest.mark.parametrize("make", ["file", "link", "dangling", "open", "fifo"])
def test_what_else_is_in_its_place_is_not_used(site: Path, state: Path, make: str) -> None:
    """The workspace is not mounted: the record would be lost, or another user could remove it."""
    place = state / "perstack-orch" / "mounted"
    place.parent.mkdir(parents=True)
    match make:
        case "file":
            place.touch()
        case "link":
            place.symlink_to(site)
        case "dangling":
            place.symlink_to("nowhere")
        case "open":
            place.mkdir()
            place.chmod(0o777)
        case _:
            os.mkfifo(place)
    with pytest.raises(
        ConfigError, match=r"is not mounted, because this cannot be recorded in .*; make that directory"
    ):
        record_mount(site)


def test_what_cannot_be_read_is_not_taken_for_empty(site: Path, state: Path) -> None:
    """An unreadable registry is an error: otherwise all files would count as the user's own."""
    (state / "perstack-orch").mkdir(parents=True)
    (state / "perstack-orch" / "mounted").touch()
    with pytest.raises(ConfigError, match=r"cannot be read .*, so configuration counts only if it is named"):
        found(site)


def test_a_workspace_that_holds_it_is_refused(state: Path, tmp_path: Path) -> None:
    """A workspace that contains the registry, or lies in it, is refused: an Expert could delete the records."""
    for path in (tmp_path, state, state / "perstack-orch", state / "perstack-orch" / "mounted"):
        path.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ConfigError, match="contains the registry of mounted workspaces"):
            record_mount(path)
    (state / "perstack-orch" / "mounted" / "inner").mkdir()
    with pytest.raises(ConfigError, match="or is in it"):
        record_mount(state / "perstack-orch" / "mounted" / "inner")


def test_it_is_not_put_where_one_was_mounted(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry inside a mounted workspace is refused: a job that still works there could empty it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    record_mount(site)
    (tmp_path / "home" / ".local").mkdir(parents=True)
    (tmp_path / "state").rename(tmp_path / "home" / ".local" / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(site / "state"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=f"is in {site}, which was mounted as one itself"):
        record_mount(tmp_path / "other")


@as_root
def test_without_a_home_nothing_is_written_down(public: Path) -> None:
    """A home of another user does not count: sudo and setpriv leave that user's variables."""
    left: tuple[Mapping[str, str], ...] = ({}, {"HOME": str(public), "XDG_STATE_HOME": str(public / "state")})
    for environ in left:
        assert as_user(OTHER, state_home, environ) is None
        as_user(OTHER, lambda: record_mount(public / "site"), environ)
    assert [path.name for path in public.iterdir()] == ["site"]


@as_root
def test_each_user_has_one(public: Path) -> None:
    """The registry is below the user's home by default; root's own records there are not the user's."""
    home, site = public / "home", public / "site"
    home.mkdir()
    os.chown(home, OTHER, OTHER)
    environ = {"HOME": str(home)}
    as_user(OTHER, lambda: record_mount(site), environ)
    mounted = home / ".local" / "state" / "perstack-orch" / "mounted"
    assert mounted.stat().st_uid == OTHER
    assert (home / ".local" / "state").stat().st_mode & 0o777 == 0o700
    assert as_user(OTHER, lambda: found(site / "src"), environ) == site
    assert found(site) is None
    mounted.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        as_user(OTHER, lambda: record_mount(site / "src"), environ)


@as_root
def test_where_state_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's state is where others can read it; under sudo, the user's counts too, even with the user's variables."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    assert state_home() == tmp_path / "state"
    for value in (None, "", "relative", str(theirs), str(theirs / "state")):
        monkeypatch.delenv("XDG_STATE_HOME") if value is None else monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_home() == Path("/var/lib")
    monkeypatch.setenv("SUDO_UID", "1")
    assert Path("/usr/sbin/.local/state") in known_state_homes()
    assert own_uids() == {0, 1}
    monkeypatch.setenv("SUDO_UID", "x")
    assert own_uids() == {0}
    assert as_user(OTHER, own_uids, {"SUDO_UID": "1"}) == {OTHER, 0}


@as_root
def test_what_root_has_mounted_all_know(public: Path) -> None:
    """Root's Experts run as the workspace's owner, who may work there next, so the owner sees root's records."""
    program = (
        "import os, pathlib, sys\n"
        "from orchestrator.disk.mount_registry import mounted_above, record_mount\n"
        "from orchestrator.disk.path_trail import follow\n"
        "site = pathlib.Path(sys.argv[1])\n"
        "os.umask(0o077)\n"
        "record_mount(site)\n"
        "os.setgroups([]); os.setresgid(4242, 4242, 4242); os.setresuid(4242, 4242, 4242)\n"
        "print(mounted_above(follow(site / 'src').above))\n"
    )
    shell = 'mount -t tmpfs -o mode=755 none /var/lib || exit 77; exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", shell, "sh", sys.executable, "-c", program, str(public / "site"))
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={"HOME": "/root"})
    if ran.returncode == 77:
        pytest.skip("nothing can be mounted here")
    assert (ran.stdout.strip(), ran.stderr) == (str(public / "site"), "")
