"""Bad input: one clear sentence with the object and the next step, the right exit code, nothing left behind."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ONE, Make, Project, ended, refused, say, use

SKILL = '[experts.one.skills.web]\ntype = "mcpStdioSkill"\n'
DONE = {"one": [say("done")]}


async def test_no_config(tmp_path: Path, backend: str) -> None:
    """Without a perstack.toml anywhere above, the remedy is named."""
    refused(await Project(tmp_path, backend).run("one", "go"), 2, "perstack.toml", "--config")


async def test_bad_toml_names_file_and_line(project: Make) -> None:
    """A syntax error has its place."""
    refused(await project("[experts.one\n", {}).run("one", "go"), 2, "perstack.toml", "line")


async def test_every_problem_is_listed_with_its_path(project: Make) -> None:
    """All problems at once, each with its dotted path."""
    made = project('[experts.one]\nversion = "x"\n[experts.One]\ninstruction = ""\n', {})
    refused(await made.run("one", "go"), 2, "experts.one.version", "experts.one.instruction", "experts.One")


@pytest.mark.behaviour("B3")
async def test_an_unknown_expert_or_delegate_is_named(project: Make) -> None:
    """The error comes before anything starts."""
    refused(await project(ONE, DONE).run("two", "go"), 2, "two", "one")
    made = project(ONE + 'delegates = ["absent"]\n', DONE)
    refused(await made.run("one", "go"), 2, "absent", "experts.one.delegates")


async def test_strict_turns_warnings_into_errors(project: Make) -> None:
    """An unknown key is a warning, and an error with `--strict`."""
    made = project(ONE + 'colour = "red"\n', DONE)
    assert "experts.one.colour" in (await made.run("one", "go")).stderr
    refused(await made.run("one", "go", "--strict"), 2, "experts.one.colour")


async def test_missing_required_env(project: Make) -> None:
    """A variable without a value is named with skill and Expert."""
    skill = SKILL + 'command = "true"\nargs = ["x"]\nrequiredEnv = ["EXA_KEY"]\n'
    refused(await project(ONE + skill, DONE).run("one", "go"), 2, "EXA_KEY", "web", "one")


@pytest.mark.behaviour("A7")
async def test_a_provider_without_its_key_is_refused(tmp_path: Path, backend: str) -> None:
    """The error names the variable."""
    tmp_path.joinpath("perstack.toml").write_text(ONE)
    result = await Project(tmp_path, backend).run("one", "go")
    assert result.code == 2, result.stderr
    assert "ANTHROPIC_API_KEY" in result.stderr


async def test_a_store_in_the_workspace(project: Make) -> None:
    """Records stay out of every Expert's reach; without isolation this has no meaning."""
    made = project(ONE, DONE)
    made.workspace.mkdir()
    os.chown(made.workspace, 65532, 65532)
    result = await made.run("one", "go", "--storage", "workspace/perstack")
    if made.backend == "process":
        assert result.code == 0, result.stderr
    else:
        refused(result, 2, "inside the workspace", "--storage")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has directories of root")
@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_workspace_of_root_needs_run_as(project: Make) -> None:
    """Experts never run as root; with --run-as the log is that user's."""
    made = project(ONE, {"one": [use(("writeTextFile", {"path": "x", "text": "y"})), say("done")]})
    made.workspace.mkdir()
    refused(await made.run("one", "go"), 2, "belongs to root", "--run-as")
    made.workspace.chmod(0o777)
    result = await made.run("one", "go", "--run-as", "4321")
    assert result.code == 0, result.stderr
    assert (made.workspace / "x").stat().st_uid == 4321


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_workspace_that_cannot_be_written(project: Make) -> None:
    """The error comes before anything starts."""
    made = project(ONE, DONE)
    made.workspace.mkdir()
    os.chown(made.workspace, 65532, 65532)
    made.workspace.chmod(0o555)
    refused(await made.run("one", "go"), 2, "not writable")


@pytest.mark.behaviour("G1")
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_engine_that_does_not_answer_is_an_error(project: Make) -> None:
    """The error names the address and the remedy, and no other backend is used instead."""
    result = await project(ONE, DONE).run("one", "go", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    refused(result, 3, "/nowhere/docker.sock")


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_image_that_is_not_there(project: Make) -> None:
    """The image and how to get it are named."""
    refused(await project(ONE, DONE).run("one", "go", "--image", "absent:1"), 3, "absent:1", "pull or build it")


@pytest.mark.behaviour("C4")
@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ({"name": "AuthenticationError", "message": "invalid key", "statusCode": 401}, 1, "invalid key"),
        ({"name": "Overloaded", "message": "try later", "statusCode": 529, "isRetryable": True}, 1, "Max retries (1)"),
    ],
)
async def test_model_errors_end_the_run_with_their_reason(
    project: Make, failure: dict[str, Any], code: int, said: str
) -> None:
    """One that cannot be retried ends it at once, another when retries are used up; both give the reason."""
    made = project(ONE, {"one": [{"error": failure}] * 3})
    result = await made.run("one", "go", "--max-retries", "1")
    assert result.code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.types[-1] == "stopRunByError"


@pytest.mark.behaviour("B13")
async def test_the_step_limit_has_its_own_exit_code(project: Make) -> None:
    """A job that stopped at the limit neither succeeded nor failed."""
    look = use(("listDirectory", {"path": "."}))
    result = await project(ONE, {"one": [look] * 3}).run("one", "go", "--max-steps", "2")
    assert result.code == 4
    assert result.types[-1] == "stopRunByExceededMaxSteps"


async def test_an_mcp_server_that_does_not_start(project: Make) -> None:
    """The Run ends with the skill's name, its command, and its last output."""
    skill = SKILL + 'command = "/bin/sh"\nargs = ["-c", "echo no luck >&2; exit 3"]\n'
    result = await project(ONE + skill, DONE).run("one", "go")
    assert result.code == 1
    assert "web" in result.stderr
    assert "Traceback" not in result.stderr
    assert "no luck" in result.stdout.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_and_removes_everything(project: Make, number: signal.Signals, code: int) -> None:
    """Ctrl-C in the middle of a model call: no container stays, the job is on record as cancelled."""
    made = project(ONE, {"one": [say("late") | {"delayMs": 60_000}]})
    process = await made.start("run", "--backend", made.backend, "--job-id", "cut", "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"startGeneration" not in await process.stdout.readline():
            pass
    process.send_signal(number)
    result = await ended(process)
    assert result.code == code, result.stderr
    assert "Traceback" not in result.stderr
    assert '"cancelled"' in (made.store / "jobs" / "cut" / "job.json").read_text()


@pytest.mark.behaviour("B14")
async def test_a_job_id_cannot_leave_the_store(project: Make) -> None:
    """Ids that are paths are refused."""
    refused(await project(ONE, DONE).run("one", "go", "--job-id", "../x"), 2, "--job-id")


@pytest.mark.behaviour("G17")
async def test_a_query_that_looks_like_an_option_is_a_query(project: Make) -> None:
    """After `--` all arguments are words."""
    result = await project(ONE, DONE).run("one", "--env-path=/etc/passwd")
    assert result.code == 0, result.stderr
    assert b"--env-path=/etc/passwd" in result.stdout


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_a_runtime_that_the_engine_does_not_have(project: Make) -> None:
    """Those that it has are listed; plain processes have none."""
    made = project(ONE, DONE)
    refused(await made.run("one", "go", "--runtime-class", "runsx"), 3, "no runtime 'runsx'", "runc")
    result = await made.command("run", "--backend", "process", "--runtime-class", "runsc", "one", "go")
    refused(result, 2, "--runtime-class 'runsc' is not usable")
