"""Which values of an environment are secrets of a job."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.config import Config
from orchestrator.errors import MissingEnvError
from orchestrator.request import make_job, provider_of
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


def test_what_belongs_to_the_host_is_no_expert_s(tmp_path: Path) -> None:
    """The provider and registries are told by it alone, and its keys are as secret as those that Experts are given."""
    made = make_job(
        "one",
        "go",
        config=replace(CONFIG, provider_name="openai"),
        env={"OPENAI_API_KEY": "sent", "NOTE": "note", "NPM_CONFIG_REGISTRY": "https://sent.example"},
        host_env={"OPENAI_API_KEY": "own", "NPM_CONFIG_REGISTRY": "https://own.example/"},
        backend="process",
        store=tmp_path,
        workspace=tmp_path,
        env_names=("NOTE",),
    )
    assert set(made.secrets) == {"sent", "note", "own"}
    assert made.registries.npm == "https://own.example/"
    opening = provider_of(made)
    assert isinstance(opening, partial)
    assert opening.args[0].env == made.host_env


def test_what_experts_are_given_opens_no_provider(tmp_path: Path) -> None:
    """Where there are two environments the key has to be in the host's."""
    with pytest.raises(
        MissingEnvError, match="OPENAI_API_KEY is not set; have it put into the Secret that envSecret of"
    ):
        make_job(
            "one",
            "go",
            config=replace(CONFIG, provider_name="openai"),
            env={"OPENAI_API_KEY": "sent"},
            host_env={},
            backend="process",
            store=tmp_path,
            workspace=tmp_path,
        )


def test_what_an_expert_is_given_is_a_secret(tmp_path: Path) -> None:
    """Whatever it is called: it is granted by name."""
    assert _secrets({"NOTE": "the value"}, tmp_path, ("NOTE",)) == ("the value",)
