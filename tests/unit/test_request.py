"""Which values of an environment are secrets of a job."""

from pathlib import Path

import pytest

from orchestrator.config import Config
from orchestrator.request import make_job
from orchestrator.wire.expert import Expert

CONFIG = Config(
    path=None,
    directory=Path("/"),
    provider_name="scripted",
    experts={"one": Expert(key="one", name="one", version="1.0.0", instruction="Do it.", skills=())},
)


def _secrets(env: dict[str, str], directory: Path, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    made = make_job(
        "one", "go", config=CONFIG, env=env, backend="process", store=directory, workspace=directory, env_names=names
    )
    return made.secrets


@pytest.mark.parametrize("name", ["API_KEY", "GITHUB_PAT", "PAT", "DB_PWD", "npm_token", "MY_SECRET", "PASSWORD"])
def test_what_is_named_like_a_secret_is_one(name: str, tmp_path: Path) -> None:
    """Nobody has to say so."""
    assert _secrets({name: "value-of-it"}, tmp_path) == ("value-of-it",)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "PATH", "HOME", "LANG"])
def test_where_a_shell_is_is_no_secret(name: str, tmp_path: Path) -> None:
    """Every shell exports PWD: taken for a password, it would be masked in each message that names a file."""
    assert _secrets({name: "/home/me/project"}, tmp_path) == ()


def test_what_an_expert_is_given_is_a_secret(tmp_path: Path) -> None:
    """Whatever it is called: it is granted by name."""
    assert _secrets({"NOTE": "the value"}, tmp_path, ("NOTE",)) == ("the value",)
