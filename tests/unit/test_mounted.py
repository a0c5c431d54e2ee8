"""The registry of directories that were mounted as a workspace."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.caller import known_state_homes, own_uids, state_home
from orchestrator.errors import ConfigError
from orchestrator.mounted import mounted_above, mounted_on, record
from orchestrator.trail import follow
from tests.support.other_user import as_user
from tests.unit.test_trail import in_bind_mount

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can be somebody else")
OTHER = 4242


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the caller's state is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return tmp_path / "state"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with some in it."""
    (tmp_path / "site" / "src" / "deep").mkdir(parents=True)
    return tmp_path / "site"


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may pass, with a `site` in it."""
    with tempfile.TemporaryDirectory(prefix="perstack-test-", dir="/var/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        (path / "site" / "src").mkdir(parents=True)
        yield path


def found(path: Path) -> Path | None:
    """Which mounted workspace a path is in, if any."""
    return mounted_above(follow(path).above)


def test_what_was_mounted_is_known_and_all_below_it(site: Path) -> None:
    """Whatever its name; and nothing above or beside it."""
    assert found(site) is None
    record(site)
    (site.parent / "site2").mkdir()
    (site / "src" / "file").touch()
    assert [
        found(path) for path in (site, site / "src", site / "src" / "deep", site / "src" / "file", site / "absent")
    ] == [site] * 5
    assert [found(path) for path in (site.parent, site.parent / "site2", Path("/"))] == [None] * 3


def test_it_is_known_by_every_other_name(site: Path, tmp_path: Path) -> None:
    """Through links, with `..`, moved, and moved into something else."""
    record(site)
    (tmp_path / "link").symlink_to(site / "src")
    assert found(tmp_path / "link" / "deep") == site
    assert found(site / "src" / ".." / "src") == site
    (tmp_path / "around").mkdir()
    moved = site.rename(tmp_path / "around" / "moved")
    assert found(moved / "src") == moved
    assert found(tmp_path / "link") is None, "it leads nowhere now"


def test_a_bind_mount_of_it_or_of_a_part_is_known(site: Path, tmp_path: Path) -> None:
    """The first has the same inode, of the second it is known where it comes from."""
    record(site)
    for name in ("src", "."):
        at = tmp_path / f"at-{name}"
        in_bind_mount(site / name, at, lambda at=at: _is(found(at), at, site))  # type: ignore[misc]


def _is(workspace: Path | None, *expected: Path) -> None:
    assert workspace in expected


def test_a_directory_in_its_place_is_refused_and_one_with_its_inode_is_not(site: Path, tmp_path: Path) -> None:
    """A path may be that of the same directory on a disk that has another number now; an inode number is used again."""
    if follow(site).above[-1].generation is None:
        pytest.skip("this file system has no generations")
    inode = site.stat().st_ino
    record(site)
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
    """The roots of all have one inode number, and that of the device is soon used again."""
    devices = list[int]()
    for number in range(40):
        # Each at a path of its own: the same path is the same workspace.
        disk = tmp_path / f"disk-{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)  # noqa: S607 # wherever it is
        try:
            assert found(disk) is None
            record(disk)
            assert found(disk) == disk
            devices.append(disk.stat().st_dev)
        finally:
            subprocess.run(["umount", disk], check=True)  # noqa: S607 # wherever it is
    assert len(set(devices)) < len(devices), "no number was used again, so this shows nothing"


def test_it_says_by_which_workspace_and_how(site: Path, tmp_path: Path) -> None:
    """What lies in one, and what a link in one leads to."""
    record(site)
    (site / "out").symlink_to(tmp_path)
    why = f"{site}, which was mounted as a workspace, so an Expert may have"
    assert mounted_on(follow(site / "src")) == f"is in {why} written it"
    assert mounted_on(follow(site / "out" / "x")) == f"is reached through the link {site / 'out'} in {why} made it"
    assert mounted_on(follow(tmp_path)) is None


def test_to_record_again_or_at_once_is_the_same(site: Path, state: Path) -> None:
    """Many processes may begin with one workspace."""
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(record, [site] * 64))
    place = state / "perstack-orch" / "mounted"
    names = set(place.iterdir())
    assert len(names) in {2, 3}
    record(site)
    assert set(place.iterdir()) == names
    assert found(site) == site


def test_it_takes_no_time(site: Path) -> None:
    """A start has some milliseconds for everything."""
    record(site)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        record(site)
        assert found(site / "src") == site
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.002


@pytest.mark.parametrize("make", ["file", "link", "dangling", "open", "fifo"])
def test_what_else_is_in_its_place_is_not_used(site: Path, state: Path, make: str) -> None:
    """The workspace is not mounted then: it would be forgotten, or somebody else could see to that."""
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
    with pytest.raises(ConfigError, match=r"is not mounted, since that cannot be recorded in .*; make that directory"):
        record(site)


def test_what_cannot_be_read_is_not_taken_for_empty(site: Path, state: Path) -> None:
    """Then nothing is known to be the user's own."""
    (state / "perstack-orch").mkdir(parents=True)
    (state / "perstack-orch" / "mounted").touch()
    with pytest.raises(ConfigError, match=r"cannot be read .*, so configuration counts only if it is named"):
        found(site)


def test_a_workspace_that_holds_it_is_refused(state: Path, tmp_path: Path) -> None:
    """And one in it: an Expert could make it forget. So it is where one was mounted before it was there."""
    for path in (tmp_path, state, state / "perstack-orch", state / "perstack-orch" / "mounted"):
        path.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ConfigError, match="holds the registry of mounted workspaces"):
            record(path)
    (state / "perstack-orch" / "mounted" / "inner").mkdir()
    with pytest.raises(ConfigError, match="or lies in it"):
        record(state / "perstack-orch" / "mounted" / "inner")


def test_it_is_not_put_where_one_was_mounted(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that still works there could empty it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    record(site)
    (tmp_path / "home" / ".local").mkdir(parents=True)
    (tmp_path / "state").rename(tmp_path / "home" / ".local" / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(site / "state"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=f"is in {site}, which was mounted as one itself"):
        record(tmp_path / "other")


@as_root
def test_without_a_home_nothing_is_written_down(public: Path) -> None:
    """A home that is not the caller's is none: sudo and setpriv leave the variables of another user."""
    left: tuple[Mapping[str, str], ...] = ({}, {"HOME": str(public), "XDG_STATE_HOME": str(public / "state")})
    for environ in left:
        assert as_user(OTHER, state_home, environ) is None
        as_user(OTHER, lambda: record(public / "site"), environ)
    assert [path.name for path in public.iterdir()] == ["site"]


@as_root
def test_each_user_has_one(public: Path) -> None:
    """Below their home unless they say otherwise; what root records in its own is root's to know."""
    home, site = public / "home", public / "site"
    home.mkdir()
    os.chown(home, OTHER, OTHER)
    environ = {"HOME": str(home)}
    as_user(OTHER, lambda: record(site), environ)
    mounted = home / ".local" / "state" / "perstack-orch" / "mounted"
    assert mounted.stat().st_uid == OTHER
    assert (home / ".local" / "state").stat().st_mode & 0o777 == 0o700
    assert as_user(OTHER, lambda: found(site / "src"), environ) == site
    assert found(site) is None
    mounted.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        as_user(OTHER, lambda: record(site / "src"), environ)


@as_root
def test_where_state_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's is where others can read it; through sudo that of the user counts, also where their variables are kept."""
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
    """Experts of root's run as the workspace's owner, who may work there next. Tried where /var/lib is another."""
    program = (
        "import os, pathlib, sys\n"
        "from orchestrator.mounted import mounted_above, record\n"
        "from orchestrator.trail import follow\n"
        "site = pathlib.Path(sys.argv[1])\n"
        "os.umask(0o077)\n"
        "record(site)\n"
        "os.setgroups([]); os.setresgid(4242, 4242, 4242); os.setresuid(4242, 4242, 4242)\n"
        "print(mounted_above(follow(site / 'src').above))\n"
    )
    shell = 'mount -t tmpfs -o mode=755 none /var/lib || exit 77; exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", shell, "sh", sys.executable, "-c", program, str(public / "site"))
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={"HOME": "/root"})
    if ran.returncode == 77:
        pytest.skip("nothing can be mounted here")
    assert (ran.stdout.strip(), ran.stderr) == (str(public / "site"), "")
