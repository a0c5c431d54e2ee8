"""Which files count where they were found, and what is said of those that do not."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import find, load
from orchestrator.config.environment import Environment, merge
from orchestrator.config.found import why_not
from orchestrator.errors import ConfigError
from orchestrator.mounted import record
from tests.unit.test_trail import in_bind_mount

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
    """A directory with all the files that are found."""
    path = tmp_path / "project"
    path.mkdir()
    for name, text in (("perstack.toml", TOML), (".env", "A=1\n"), ("perstack.lock", "no lock")):
        (path / name).write_text(text)
    return path


def change_mode(mode: int) -> Callable[[Path], None]:
    """Give a path that mode."""
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    """Give a path to another user."""
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o1777], ids=oct)
@pytest.mark.parametrize("file_mode", [0o600, 0o664], ids=oct)
def test_usual_modes_are_fine(project: Path, mode: int, file_mode: int) -> None:
    """With a umask of 002 all of it is writable for the group; and in a directory as /tmp nobody replaces a file."""
    (project / "perstack.toml").chmod(file_mode)
    project.chmod(mode)
    assert find(project) == project / "perstack.toml"
    assert why_not(project / ".env") is None


@pytest.mark.parametrize("path", ["absent", "absent/../.env", "dangling"])
def test_what_is_not_there_is_not_to_be_opened(project: Path, path: str) -> None:
    """Somebody may have put it there since it was looked for."""
    (project / "dangling").symlink_to("absent")
    with pytest.raises(FileNotFoundError):
        why_not(project / path)
    assert merge({}, (path,), project) == Environment({})


@as_root
def test_a_directory_for_all_that_is_mounted_read_only_is_fine(project: Path, tmp_path: Path) -> None:
    """As a ConfigMap is in a Pod."""
    project.chmod(0o777)
    at = tmp_path / "at"

    def look() -> None:
        assert why_not(at / "perstack.toml") is not None
        subprocess.run(["mount", "-o", "remount,bind,ro", at], check=True)  # noqa: S607
        assert why_not(at / "perstack.toml") is None

    in_bind_mount(project, at, look)


CASES = {
    "file for all": (change_mode(0o666), None, "is writable for everybody"),
    "directory for all": (None, change_mode(0o777), "is in {project}, where everybody may replace it"),
    "file of another": (give_away, None, "belongs to user 4242, and not to you"),
    "directory of another": (None, give_away, "is in {project}, which belongs to user 4242, and not to you"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_others_may_have_written_does_not_count(project: Path, case: str) -> None:
    """perstack.toml is an error that says how to use it all the same; the others are ignored, and that is told."""
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
    lock = f"{project / 'perstack.lock'} {why}, so it is ignored; keep it and perstack.toml where no Expert writes"
    assert (tuple(config.experts), config.notes) == (("one",), (lock,))


def test_one_further_up_is_not_found_instead(project: Path) -> None:
    """Who has a perstack.toml here means that one."""
    inner = project / "inner"
    inner.mkdir()
    assert find(inner) == project / "perstack.toml"
    (inner / "perstack.toml").write_text(TOML)
    (inner / "perstack.toml").chmod(0o666)
    with pytest.raises(ConfigError, match=r"inner/perstack\.toml is writable for everybody"):
        find(inner)


@pytest.mark.parametrize("below", ["", "src", "src/deep"])
def test_nothing_in_a_mounted_workspace_counts(project: Path, below: str) -> None:
    """Nor below it; what is above does."""
    site = project / "site"
    place = site / below
    place.mkdir(parents=True)
    for name in ("perstack.toml", ".env", "perstack.lock"):
        (place / name).write_bytes((project / name).read_bytes())
    assert find(place) == place / "perstack.toml"
    record(site)
    why = f"is in {site}, which was mounted as a workspace, so an Expert may have written it"
    with pytest.raises(ConfigError) as raised:
        find(place)
    toml = place / "perstack.toml"
    assert str(raised.value) == f"{toml} {why}; if it is yours, name it with --config {os.path.relpath(toml)}"
    assert merge({}, (".env",), place) == Environment(
        {}, (f".env {why}, so it is ignored; name it with --env-path if it is yours",)
    )
    assert load(toml).notes == (
        f"{place / 'perstack.lock'} {why}, so it is ignored; keep it and perstack.toml where no Expert writes",
    )
    assert find(project) == project / "perstack.toml"
    toml.unlink()
    assert find(place) == project / "perstack.toml"


def test_what_a_link_leads_to_is_judged_as_well(project: Path, tmp_path: Path) -> None:
    """A link of the caller's to a file of theirs is fine; not to one in a workspace, and not by way of one."""
    site, mine = tmp_path / "site", tmp_path / "mine.toml"
    site.mkdir()
    (site / "x.toml").write_text(TOML)
    mine.write_text(TOML)
    (site / "out.toml").symlink_to(mine)
    record(site)
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
        said = why_not(toml)
        assert (said is None) == (why is None)
        assert (said or "").startswith(why or "")


@as_root
def test_links_of_others_are_not_followed(project: Path, tmp_path: Path) -> None:
    """Who made one can have it lead elsewhere."""
    (tmp_path / "mine.toml").write_text(TOML)
    toml, between = project / "perstack.toml", tmp_path / "between"
    between.symlink_to("mine.toml")
    toml.unlink()
    toml.symlink_to(between)
    assert why_not(toml) is None
    give_away(between)
    assert why_not(toml) == f"is reached through the link {between}, which belongs to user {OTHER}"


@as_root
def test_what_a_user_has_is_root_s_through_sudo(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git has it; not that of a third."""
    for path in (project, *project.iterdir()):
        give_away(path)
    assert why_not(project / "perstack.toml") == f"belongs to user {OTHER}, and not to you"
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    assert why_not(project / "perstack.toml") is None
    monkeypatch.setenv("SUDO_UID", str(OTHER + 1))
    assert why_not(project / "perstack.toml") == f"belongs to user {OTHER}, and not to you"


def test_a_hard_link_may_be_in_a_workspace(project: Path, tmp_path: Path) -> None:
    """Then an Expert can write to it there; but to none of root's, as whom no Expert runs."""
    os.link(project / ".env", tmp_path / "elsewhere")
    assert (why_not(project / ".env") is None) == ROOT


@as_root
def test_a_hard_link_through_sudo(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are users behind root whose files an Expert may write."""
    give_away(project / ".env")
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    assert why_not(project / ".env") is None
    os.link(project / ".env", tmp_path / "elsewhere")
    assert why_not(project / ".env") == "has another name (a hard link), which may be in a workspace"
