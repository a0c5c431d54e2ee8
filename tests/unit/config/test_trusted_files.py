"""Which found files are trusted, and the messages about those that are not."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import find, load
from orchestrator.config.environment import Environment, merge
from orchestrator.config.trusted_files import why_untrusted
from orchestrator.disk.mount_registry import record_mount
from orchestrator.errors import ConfigError
from tests.unit.disk.test_path_trail import in_bind_mount

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root has files of other users")
OTHER = 4242
TOML = '[experts.one]\ninstruction = "x"\n'


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SUDO_UID", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with all files that commands find by themselves."""
    path = tmp_path / "project"
    path.mkdir()
    for name, text in (("perstack.toml", TOML), (".env", "A=1\n"), ("perstack.lock", "no lock")):
        (path / name).write_text(text)
    return path


def change_mode(mode: int) -> Callable[[Path], None]:
    """Return a function that sets this mode on a path."""
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    """Change the owner of a path to another user."""
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o1777], ids=oct)
@pytest.mark.parametrize("file_mode", [0o600, 0o664], ids=oct)
def test_usual_modes_are_fine(project: Path, mode: int, file_mode: int) -> None:
    """Files that the group can write (umask 002), and files in a sticky directory such as /tmp, are trusted."""
    (project / "perstack.toml").chmod(file_mode)
    project.chmod(mode)
    assert find(project) == project / "perstack.toml"
    assert why_untrusted(project / ".env") is None


@pytest.mark.parametrize("path", ["absent", "absent/../.env", "dangling"])
def test_what_is_not_there_is_not_to_be_opened(project: Path, path: str) -> None:
    """A missing file is reported as missing, since another user may create it after the check."""
    (project / "dangling").symlink_to("absent")
    with pytest.raises(FileNotFoundError):
        why_untrusted(project / path)
    assert merge({}, (path,), project) == Environment({})


@as_root
def test_a_directory_for_all_that_is_mounted_read_only_is_fine(project: Path, tmp_path: Path) -> None:
    """A directory writable by all users is trusted if it is mounted read-only, like a ConfigMap in a Pod."""
    project.chmod(0o777)
    at = tmp_path / "at"

    def look() -> None:
        assert why_untrusted(at / "perstack.toml") is not None
        subprocess.run(["mount", "-o", "remount,bind,ro", at], check=True)  # noqa: S607
        assert why_untrusted(at / "perstack.toml") is None

    in_bind_mount(project, at, look)


CASES = {
    "file for all": (change_mode(0o666), None, "is writable by all users"),
    "directory for all": (None, change_mode(0o777), "is in {project}, where all users may replace it"),
    "file of another": (give_away, None, "belongs to user 4242, and not to you"),
    "directory of another": (None, give_away, "is in {project}, which belongs to user 4242, and not to you"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_others_may_have_written_does_not_count(project: Path, case: str) -> None:
    """For perstack.toml the error names the option that allows it; other files are ignored with a note."""
    to_file, to_directory, why = CASES[case]
    if give_away in (to_file, to_directory) and not ROOT:
        pytest.skip("only root has files of other users")
    for path in project.iterdir():
        if to_file is not None:
            to_file(path)
    if to_directory is not None:
        to_directory(project)
    why, toml = why.format(project=project), project / "perstack.toml"
    with pytest.raises(ConfigError) as raised:
        find(project)
    named = os.path.relpath(toml)
    assert str(raised.value) == f"{toml} {why}; if it is yours, name it with --config {named}"
    assert merge({}, (".env", ".env.local"), project) == Environment(
        {}, (f".env {why}, so it is ignored; name it with --env-path if it is yours",)
    )
    assert merge({}, (".env",), project, named=True).values == {"A": "1"}
    config = load(toml)
    lock = f"{project / 'perstack.lock'} {why}, so it is ignored; keep it and perstack.toml where no Expert can write"
    assert (tuple(config.experts), config.notes) == (("one",), (lock,))


def test_one_further_up_is_not_found_instead(project: Path) -> None:
    """If the nearest perstack.toml is not trusted, the one further up is not used."""
    inner = project / "inner"
    inner.mkdir()
    assert find(inner) == project / "perstack.toml"
    (inner / "perstack.toml").write_text(TOML)
    (inner / "perstack.toml").chmod(0o666)
    with pytest.raises(ConfigError, match=r"inner/perstack\.toml is writable by all users"):
        find(inner)


@pytest.mark.parametrize("below", ["", "src", "src/deep"])
def test_nothing_in_a_mounted_workspace_counts(project: Path, below: str) -> None:
    """Nothing in or below a mounted workspace is trusted; files above it are."""
    site = project / "site"
    place = site / below
    place.mkdir(parents=True)
    for name in ("perstack.toml", ".env", "perstack.lock"):
        (place / name).write_bytes((project / name).read_bytes())
    assert find(place) == place / "perstack.toml"
    record_mount(site)
    why = f"is in {site}, which was mounted as a workspace, so an Expert may have written it"
    with pytest.raises(ConfigError) as raised:
        find(place)
    toml = place / "perstack.toml"
    assert str(raised.value) == f"{toml} {why}; if it is yours, name it with --config {os.path.relpath(toml)}"
    assert merge({}, (".env",), place) == Environment(
        {}, (f".env {why}, so it is ignored; name it with --env-path if it is yours",)
    )
    assert load(toml).notes == (
        f"{place / 'perstack.lock'} {why}, so it is ignored; keep it and perstack.toml where no Expert can write",
    )
    assert find(project) == project / "perstack.toml"
    toml.unlink()
    assert find(place) == project / "perstack.toml"


def test_what_a_link_leads_to_is_judged_as_well(project: Path, tmp_path: Path) -> None:
    """A link to the caller's own file is trusted; a link into a workspace, or through one, is not."""
    site, mine = tmp_path / "site", tmp_path / "mine.toml"
    site.mkdir()
    (site / "x.toml").write_text(TOML)
    mine.write_text(TOML)
    (site / "out.toml").symlink_to(mine)
    record_mount(site)
    toml = project / "perstack.toml"
    for target, why in (
        (mine, None),
        (site / "x.toml", f"is in {site}, which was mounted as a workspace"),
        (
            site / "out.toml",
            f"is reached through the link {site / 'out.toml'} in {site}, which was mounted as a workspace",
        ),
        (site / ".." / "mine.toml", None),
    ):
        toml.unlink()
        toml.symlink_to(target)
        said = why_untrusted(toml)
        assert (said is None) == (why is None)
        assert (said or "").startswith(why or "")


@as_root
def test_links_of_others_are_not_followed(project: Path, tmp_path: Path) -> None:
    """Links of other users are refused, since the owner may change the target."""
    (tmp_path / "mine.toml").write_text(TOML)
    toml, between = project / "perstack.toml", tmp_path / "between"
    between.symlink_to("mine.toml")
    toml.unlink()
    toml.symlink_to(between)
    assert why_untrusted(toml) is None
    give_away(between)
    assert why_untrusted(toml) == f"is reached through the link {between}, which belongs to user {OTHER}"


@as_root
def test_what_a_user_has_is_root_s_through_sudo(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the user who called sudo are trusted, as in git; those of a third user are not."""
    for path in (project, *project.iterdir()):
        give_away(path)
    assert why_untrusted(project / "perstack.toml") == f"belongs to user {OTHER}, and not to you"
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    assert why_untrusted(project / "perstack.toml") is None
    monkeypatch.setenv("SUDO_UID", str(OTHER + 1))
    assert why_untrusted(project / "perstack.toml") == f"belongs to user {OTHER}, and not to you"


def test_a_hard_link_may_be_in_a_workspace(project: Path, tmp_path: Path) -> None:
    """A hard link may be in a workspace, where an Expert can write to it, unless the file is root's."""
    os.link(project / ".env", tmp_path / "elsewhere")
    assert (why_untrusted(project / ".env") is None) == ROOT


@as_root
def test_a_hard_link_through_sudo(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under sudo, a hard link of the calling user is refused too."""
    give_away(project / ".env")
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    assert why_untrusted(project / ".env") is None
    os.link(project / ".env", tmp_path / "elsewhere")
    assert why_untrusted(project / ".env") == "has another name (a hard link), which may be in a workspace"
