"""What a job is made from: options, Config, environment; and which values are its secrets."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends import open_backend
from orchestrator.config import Config
from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.jobs.resume import Resume
from orchestrator.jobs.run_job import run_job
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import make_job, provider_of
from orchestrator.pool.prewarm import WarmLimit
from orchestrator.sandbox.api import User
from orchestrator.store import Store
from orchestrator.wire.expert import Expert

CONFIG = Config(
    path=None,
    directory=Path("/"),
    provider_name="scripted",
    experts={"one": Expert(key="one", name="one", version="1.0.0", instruction="Do it.", skills=())},
)


def _secrets(env: dict[str, str], directory: Path, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    made = make_job(
        "one",
        "go",
        config=CONFIG,
        env=env,
        backend="process",
        store=directory,
        workspace=directory,
        options=JobOptions(env=names),
    )
    return made.secrets


@pytest.mark.parametrize("name", ["API_KEY", "GITHUB_PAT", "PAT", "DB_PWD", "npm_token", "MY_SECRET", "PASSWORD"])
def test_what_is_named_like_a_secret_is_one(name: str, tmp_path: Path) -> None:
    """A variable with a secret's name needs no declaration."""
    assert _secrets({name: "value-of-it"}, tmp_path) == ("value-of-it",)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "PATH", "HOME", "LANG"])
def test_where_a_shell_is_is_no_secret(name: str, tmp_path: Path) -> None:
    """Every shell exports PWD: as a secret, it would be masked in each message that names a file."""
    assert _secrets({name: "/home/me/project"}, tmp_path) == ()


def test_what_belongs_to_the_host_is_no_expert_s(tmp_path: Path) -> None:
    """The provider and registries are configured only by it, and its keys are secrets like those of Experts."""
    made = make_job(
        "one",
        "go",
        config=replace(CONFIG, provider_name="openai"),
        env={"OPENAI_API_KEY": "sent", "NOTE": "note", "NPM_CONFIG_REGISTRY": "https://sent.example"},
        host_env={"OPENAI_API_KEY": "own", "NPM_CONFIG_REGISTRY": "https://own.example/"},
        backend="process",
        store=tmp_path,
        workspace=tmp_path,
        options=JobOptions(env=("NOTE",)),
    )
    assert set(made.secrets) == {"sent", "note", "own"}
    assert made.registries.npm == "https://own.example/"
    opening = provider_of(made)
    assert isinstance(opening, partial)
    assert opening.args[0].env == made.host_env


def test_what_experts_are_given_opens_no_provider(tmp_path: Path) -> None:
    """With two environments, the provider's key must be in the host's."""
    with pytest.raises(
        MissingEnvError, match="OPENAI_API_KEY is not set; add it to the Secret that the chart's envSecret"
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
    """A granted value is a secret, whatever its variable's name."""
    assert _secrets({"NOTE": "the value"}, tmp_path, ("NOTE",)) == ("the value",)


@pytest.mark.parametrize(
    ("old", "new"), [({"budget": WarmLimit(1)}, "warm_limit"), ({"go_on": Resume()}, "resume")], ids=["budget", "go_on"]
)
async def test_the_old_names_of_arguments_still_work(tmp_path: Path, old: dict[str, Any], new: str) -> None:
    """With a warning at the caller's line, before anything of the job is looked at."""
    job = make_job(
        "one",
        "go",
        config=CONFIG,
        env={},
        backend="process",
        store=tmp_path,
        workspace=tmp_path,
        options=JobOptions(env=("ABSENT",)),
    )
    async with open_backend("process", {}, image="") as backend:
        with (
            pytest.warns(DeprecationWarning, match=rf"is now run_job\({new}=\)") as warned,
            pytest.raises(MissingEnvError),
        ):
            async with run_job(job, backend=backend, store=Store(tmp_path), provider=provider_of(job), **old):
                pytest.fail("it cannot start")
    assert [each.filename for each in warned] == [__file__]


def test_arguments_that_became_options_still_work(tmp_path: Path) -> None:
    """With a warning at the caller's line that names them; an unknown one is refused."""
    with pytest.warns(DeprecationWarning, match="in place of env_names, allowed, prewarm") as warned:
        made = make_job(
            "one", "go", config=CONFIG, env={}, backend="process", store=tmp_path, workspace=tmp_path,
            env_names=["NOTE"], allowed={"web": ("a.example", "b.example")}, prewarm=0, run_seconds=2.0,
        )  # fmt: skip
    assert [each.filename for each in warned] == [__file__]
    hosts = ("web=a.example", "web=b.example")
    assert made.options == JobOptions(env=("NOTE",), allow_domain=hosts, prewarm="0", run_seconds=2.0)
    assert (made.allowed, made.prewarm) == ({"web": ("a.example", "b.example")}, 0)
    with pytest.warns(DeprecationWarning, match="run_as"), pytest.raises(ConfigError, match="--run-as '0:100'"):
        make_job("one", "go", config=CONFIG, env={}, run_as=User(0, 100))
    with pytest.warns(DeprecationWarning, match="colour"), pytest.raises(TypeError, match="colour"):
        make_job("one", "go", config=CONFIG, env={}, colour="red")


def test_options_take_precedence_over_the_config(tmp_path: Path) -> None:
    """What an option leaves out, perstack.toml decides."""
    options = JobOptions(model="m", max_steps=3, reasoning_budget="4096")
    made = make_job(
        "one", "go", config=CONFIG, env={}, options=options, backend="process", store=tmp_path, workspace=tmp_path
    )
    assert (made.model, made.max_steps, made.reasoning_budget) == ("m", 3, 4096)
    assert (made.max_retries, made.timeout_ms) == (CONFIG.max_retries, CONFIG.timeout_ms)
