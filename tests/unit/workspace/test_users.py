"""Directories of users: each their own, whatever the ids are."""

import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.sandbox.api import User
from orchestrator.workspace.users import directory_name, make_store, make_workspace, store_of

OWNER = User(65532, 65532) if os.geteuid() == 0 else User(os.geteuid(), os.getegid())
SAFE = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{32}")
TRICKS = [
    *("..", ".", "/", "../../etc", "/etc/passwd", "a/b", "a\\b", "-x", "--user", "a\nb", "a:b", "a\0b", " ", "a b"),
    *(
        "a",
        "A",
        "\uff41",
        "x" * 300,
        "x" * 299 + "y",
        "Ü",
        "U\u0308",
        "ü",
        "ß",
        "ss",
        "SS",
        "\u0131",
        "i",
        "İ",
        "con",
        "user",
    ),
    *("\udcff", "\U0001f600", "\u202e", "a-b", "a_b", "a.b", "users", "user.json", "%2e%2e", "~", "$HOME", "*"),
]
NOT_SAID = "does not name its user"
IDS = st.text(st.characters(), min_size=1, max_size=40)


def test_tricks_are_all_different_and_all_harmless() -> None:
    """Each name is a separate, harmless directory on any file system, whatever the id."""
    names = [directory_name(trick) for trick in TRICKS]
    assert len({name.casefold() for name in names}) == len(TRICKS)
    for name in names:
        assert SAFE.fullmatch(name), name
        assert len(name) <= 24 + 1 + 32


@given(one=IDS, other=IDS)
def test_different_users_have_different_names(one: str, other: str) -> None:
    """Names differ also where a file system ignores case or composes characters."""
    assert (directory_name(one) == directory_name(other)) is (one == other)
    composed = unicodedata.normalize("NFC", one)
    assert composed == one or directory_name(composed) != directory_name(one)


@pytest.mark.parametrize("user_id", TRICKS)
def test_a_user_comes_back_to_the_same_directory(tmp_path: Path, user_id: str) -> None:
    """The directory is made once, for this user only, below the root, and its record has the user's id."""
    store, workspace = make_store(tmp_path / "perstack", user_id), make_workspace(tmp_path, user_id, OWNER)
    assert make_store(tmp_path / "perstack", user_id) == store_of(tmp_path / "perstack", user_id) == store
    assert make_workspace(tmp_path, user_id, OWNER) == workspace
    assert (store.parent, workspace.parent.parent) == (tmp_path / "perstack" / "users", tmp_path)
    for directory, uid in ((store, os.geteuid()), (workspace.parent, os.geteuid()), (workspace, OWNER.uid)):
        status = directory.lstat()
        assert (status.st_uid, oct(status.st_mode & 0o777)) == (uid, "0o700")


def test_two_users_share_nothing(tmp_path: Path) -> None:
    """No user's workspace is above, below or equal to another's."""
    one, other = (make_workspace(tmp_path, user_id, OWNER) for user_id in ("a", "A"))
    assert not one.is_relative_to(other.parent)
    assert not other.is_relative_to(one.parent)


def test_a_user_without_a_job_has_no_store_yet(tmp_path: Path) -> None:
    """A look-up creates nothing."""
    assert not store_of(tmp_path / "perstack", "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_no_id_is_no_user() -> None:
    """An empty id is refused, and does not mean all users."""
    for find in (make_store, store_of):
        with pytest.raises(ConfigError, match="--user '' is not usable"):
            find(Path("/x"), "")
    with pytest.raises(ConfigError, match="--user '' is not usable"):
        make_workspace(Path("/x"), "", OWNER)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped root is not created."""
    with pytest.raises(ConfigError, match=rf"no directory {tmp_path}/absent exists for the users' directories"):
        make_workspace(tmp_path / "absent", "a", OWNER)


@pytest.mark.parametrize("where", ["directory", "workspace", "record"])
def test_links_are_not_followed(tmp_path: Path, where: str) -> None:
    """Links are refused at any level below the root."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    root = tmp_path / "root"
    root.mkdir()
    path = root / directory_name("a")
    if where == "directory":
        path.symlink_to(elsewhere)
    else:
        make_workspace(root, "a", OWNER)
        target = path / ("workspace" if where == "workspace" else "user.json")
        if where == "workspace":
            target.rmdir()
        else:
            target.rename(elsewhere / "user.json")
        target.symlink_to(elsewhere / ("user.json" if where == "record" else ""))
    with pytest.raises(ConfigError, match="is a symbolic link or not a directory"):
        make_workspace(root, "a", OWNER)


def test_what_is_not_the_user_s_is_refused(tmp_path: Path) -> None:
    """Another user's, a lost or a damaged record, and a directory open to others are refused and not changed."""
    path = make_workspace(tmp_path, "a", OWNER).parent
    for content, why in (('{"user": "b"}', "is that of user 'b'"), ("{", NOT_SAID), ("[]", NOT_SAID)):
        (path / "user.json").write_text(content)
        with pytest.raises(ConfigError, match=why):
            make_workspace(tmp_path, "a", OWNER)
    (path / "user.json").unlink()
    with pytest.raises(ConfigError, match=NOT_SAID):
        make_workspace(tmp_path, "a", OWNER)
    (path / "user.json").write_text('{"user": "a"}')
    path.chmod(0o750)
    with pytest.raises(ConfigError, match="open to others"):
        make_workspace(tmp_path, "a", OWNER)
    path.chmod(0o700)
    assert make_workspace(tmp_path, "a", OWNER) == path / "workspace"
