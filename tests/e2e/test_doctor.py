"""`doctor`: what it finds where a job could run, and where one could not."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor.finding import Area
from tests.support import fake_anthropic
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.project import COMMAND, ONE, Project, Result, refused, say, use
from tests.support.second_engine import second_engine

KEY = "canary-doctor-77"


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """A project whose model is scripted."""
    return Project.make(tmp_path / "project", "process", ONE, {"one": [say("done")]})


async def doctor(made: Project, *options: str, env: Mapping[str, str] | None = None) -> tuple[Result, dict[str, Any]]:
    """Run it, and return its result and its JSON, findings by area and check."""
    result = await made.command("doctor", "--json", *options, env={"KUBECONFIG": "", "HOME": "/nowhere", **(env or {})})
    assert "Traceback" not in result.stderr
    assert result.stdout, result.stderr
    found = json.loads(result.stdout)
    assert result.code == (0 if found["canRun"] else 1)
    return result, {f"{each['area']} {each['check']}": each for each in found["findings"]}


def levels(found: Mapping[str, Any], *names: str) -> list[str]:
    """Return the levels of some findings."""
    return [found[name]["level"] for name in names]


@pytest.mark.docker
async def test_a_machine_on_which_a_job_runs(made: Project) -> None:
    """Exit code 0: the engine is described, and a Sandbox was started, is closed, and is gone again."""
    result, found = await doctor(made)
    assert result.code == 0, result.stdout
    assert levels(found, "engine engine", "image image", "sandbox start", "network closed", "model key") == ["ok"] * 5
    assert "kernel " in found["engine machine"]["found"]
    assert levels(found, "workspace workspace", "store records", "store sockets") == ["ok"] * 3
    # No test machine needs the internet; the proxy's reason is shown.
    assert "network egress" in found
    assert not made.workspace.exists()
    assert not made.store.exists()


@pytest.mark.docker
@pytest.mark.disturbing
async def test_the_link_is_the_one_that_a_job_gets(tmp_path: Path) -> None:
    """An engine on this kernel that does not see the workspace: `doctor`, `explain` and `run` use a stream."""
    wait = {"command": "sleep", "args": ["90"], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    made = Project.make(tmp_path / "project", "docker", ONE, {"one": [use(("exec", wait)), say("done")]})
    reason = "the engine does not see this machine's files"
    async with second_engine(Path("/var/lib") / f"perstack-test-{os.getpid()}", hidden=tmp_path) as far:
        there = {"DOCKER_HOST": far.address}
        _, found = await doctor(made, env=there)
        assert found["engine link"]["found"] == f"Sandboxes reach their broker by stream: {reason}"
        _, found = await doctor(made, "--image", "no-such-image:1", env=there)
        assert "by socket: the engine runs on this machine's kernel, unless" in found["engine link"]["found"]
        told = await made.command("explain", "--json", "one", env=there)
        assert json.loads(told.stdout)["link"] == ["stream", reason]
        process = await made.start("run", "one", "go", env=there)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b'"callTools"' not in (line := await process.stdout.readline()):
                assert line, (await process.communicate())[1]
        (container,) = far.docker("ps", "--quiet").split()
        # Only a Sandbox that is linked by a stream has a stdin.
        assert far.docker("inspect", "--format", "{{.Config.OpenStdin}}", container) == "true\n"
        process.send_signal(signal.SIGINT)
        await process.communicate()
    _, found = await doctor(made)
    assert found["engine link"]["found"] == (
        "Sandboxes reach their broker by socket: the engine runs on this machine's kernel"
    )


@pytest.mark.docker
async def test_the_text_has_a_line_for_each_finding(made: Project) -> None:
    """Areas in order, a remedy below what needs one, and the result last."""
    result = await made.command("doctor", "--image", "no-such-image:1", env={"KUBECONFIG": "", "HOME": "/nowhere"})
    assert result.code == 1, result.stderr
    lines = result.stdout.decode().splitlines()
    areas = [line for line in lines if line in list(Area)]
    assert areas == [each for each in Area if each in areas]
    (at,) = [number for number, line in enumerate(lines) if "no image no-such-image:1 exists" in line]
    assert lines[at].split()[:2] == ["problem", "image"]
    assert lines[at + 1].strip() == "-> pull or build it, or leave out --image"
    assert lines[-1] == "no job could run here: problems found: 1"


async def test_no_engine(made: Project, tmp_path: Path) -> None:
    """The address, what named it, and how to get an engine; other areas are checked all the same."""
    _, found = await doctor(made, env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert found["engine engine"]["level"] == "problem"
    assert f"no Docker engine at unix://{tmp_path}/none.sock" in found["engine engine"]["found"]
    assert found["engine engine"]["remedy"].startswith("start it")
    assert levels(found, "model key", "workspace workspace", "store records") == ["ok"] * 3
    assert not any(name.startswith(("image", "sandbox", "network")) for name in found)


async def test_an_engine_that_hangs_does_not_hang_doctor(made: Project, tmp_path: Path) -> None:
    """A socket that accepts and never answers is a problem with a limit in time."""
    release = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    async with await asyncio.start_unix_server(hang, tmp_path / "hanging.sock"):
        began = time.monotonic()
        _, found = await doctor(made, env={"DOCKER_HOST": f"unix://{tmp_path}/hanging.sock"})
        release.set()
    assert time.monotonic() - began < 60
    assert (found["engine engine"]["level"], found["engine engine"]["found"]) == ("problem", "no answer within 25 s")


async def test_a_socket_without_a_listener(made: Project, tmp_path: Path) -> None:
    """A socket that a stopped engine left."""
    async with await asyncio.start_unix_server(lambda *_: None, tmp_path / "dead.sock"):
        pass
    _, found = await doctor(made, env={"DOCKER_HOST": f"unix://{tmp_path}/dead.sock"})
    assert found["engine engine"]["level"] == "problem"
    assert "does not answer" in found["engine engine"]["found"]


async def test_an_engine_elsewhere(made: Project) -> None:
    """An address that cannot be used is a finding, too."""
    _, found = await doctor(made, env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert found["engine engine"]["level"] == "problem"


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (Plain(200, '{"data": []}'), "ok"),
        (fake_anthropic.error(401, "authentication_error", f"invalid x-api-key {KEY}"), "problem"),
        (Events((), then="stall"), "warning"),
    ],
)
async def test_a_key_is_tried_on_demand(made: Project, answer: Plain | Events, level: str) -> None:
    """With --model-check one request shows whether the API accepts the key; the key is in no output."""
    async with fake_http(listing=answer) as api:
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url}
        given = ("--backend", "process", "--provider", "anthropic")
        result, found = await doctor(made, *given, env=env)
        assert (levels(found, "model key", "model api"), api.probes) == (["ok", "ok"], [])
        assert found["model key"]["found"] == "anthropic: ANTHROPIC_API_KEY from the environment"
        checked, found = await doctor(made, *given, "--model-check", env=env)
    assert levels(found, "model request") == [level]
    assert KEY.encode() not in result.stdout + checked.stdout + result.stderr.encode() + checked.stderr.encode()


async def test_no_perstack_toml_and_no_key(tmp_path: Path) -> None:
    """A machine can be checked before there is a project; the missing key is the problem."""
    empty = Project(tmp_path / "empty", "process")
    empty.directory.mkdir()
    env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    result, found = await doctor(empty, "--backend", "process", env=env)
    assert result.code == 1
    assert found["model key"]["found"] == "provider 'anthropic' cannot be used: ANTHROPIC_API_KEY is not set"
    assert "perstack-orch key set anthropic" in found["model key"]["remedy"]
    assert levels(found, "engine isolation", "store records") == ["warning", "ok"]


async def test_a_workspace_and_a_store_that_cannot_be_used(made: Project) -> None:
    """A workspace that is a file, and a store below a file."""
    made.workspace.write_text("")
    (made.directory / "file").write_text("")
    _, found = await doctor(made, "--backend", "process", "--storage", "file/store")
    assert levels(found, "workspace workspace", "store records") == ["problem", "problem"]
    assert "is not a directory" in found["workspace workspace"]["found"]
    assert "--storage" in found["store records"]["remedy"]


async def test_guarded_files_are_listed(made: Project) -> None:
    """What an Expert may not see or change in the workspace."""
    made.workspace.mkdir()
    (made.workspace / ".env").write_text("A=1\n")
    (made.workspace / "perstack.toml").write_text("")
    _, found = await doctor(made, "--backend", "process")
    assert found["workspace guarded"]["found"] == "2 files: perstack.toml (read-only), .env (hidden)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk and give files to another user")
async def test_a_full_disk_and_directories_of_another_user(made: Project, tmp_path: Path) -> None:
    """Records on a full disk, and a state directory of another user, are problems that name the directory."""
    state, full = tmp_path / "state", tmp_path / "full"
    (state / "perstack-orch").mkdir(parents=True)
    os.chown(state / "perstack-orch", 4242, 4242)
    full.mkdir()
    command = (
        f"mount -t tmpfs -o size=4m tmpfs '{full}' && head -c 4000000 /dev/zero > '{full}/file'"
        f" && exec '{COMMAND[0]}' doctor --json --backend process --storage '{full}/store'"
    )
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", command),
        cwd=made.directory,
        env=made.environment | {"XDG_STATE_HOME": str(state), "KUBECONFIG": "", "HOME": "/nowhere"},
        stdout=asyncio.subprocess.PIPE,
    )
    stdout, _ = await process.communicate()
    found = {f"{each['area']} {each['check']}": each for each in json.loads(stdout)["findings"]}
    assert process.returncode == 1
    assert levels(found, "store records space", "store records disk", "store state") == [
        "problem",
        "warning",
        "problem",
    ]
    assert str(full / "store") in found["store records space"]["found"]
    assert f"{state}/perstack-orch (owner 4242" in found["store state"]["found"]


async def test_a_cluster_that_is_named_and_does_not_answer(made: Project, tmp_path: Path) -> None:
    """It is a warning, unless the job would go there: then it is a problem."""
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    kubeconfig.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"})
    )
    env = {"KUBECONFIG": str(kubeconfig)}
    _, found = await doctor(made, "--backend", "process", env=env)
    assert levels(found, "cluster server") == ["warning"]
    _, found = await doctor(made, "--backend", "kubernetes", "--user", "ann", env=env)
    assert levels(found, "cluster server") == ["problem"]
    # The model is called there, with the operator's key.
    assert not any(name.startswith(("engine", "model", "workspace")) for name in found)


async def test_wrong_options_are_refused(made: Project) -> None:
    """As for other commands: exit code 2 and one sentence."""
    refused(await made.command("doctor", "--backend", "doker"), 2, "--backend", "did you mean 'docker'?")
    refused(await made.command("doctor", "--config", "nowhere.toml"), 2, "nowhere.toml")
