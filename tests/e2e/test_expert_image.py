"""The image that `build` makes of an Expert: one container, one Expert, one user's workspace."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.container import DockerContainer

from orchestrator.backends import BACKENDS
from orchestrator.images.labels import BASE_LABEL
from orchestrator.version import VERSION
from orchestrator.wire.event import CompleteRun, ResolveToolResults
from orchestrator.wire.line import decode
from tests.support.images import docker
from tests.support.project import COMMAND, FROM_HERE, ONE, Project, Result, refused, say, use
from tests.support.traces import IMAGE_OF

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fitness"
NAME = f"perstack-orch-test-expert:{os.getpid()}"
MOST_BYTES = 400 * 1000 * 1000
CANARY = "canary-4c1f-in-no-layer"
FIRST, SECOND = "Start now", "That was a 7 of 10"
BUILD_SECONDS = 900
TIME = """
[experts.solo]
instruction = "Tell the time."
[experts.solo.skills.time]
type = "mcpStdioSkill"
command = "uvx"
args = ["mcp-server-time", "--local-timezone", "Europe/Berlin"]
"""
TELL = {"solo": [use(("get_current_time", {"timezone": "Asia/Tokyo"})), say("done")]}

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a workspace to another user"),
]


@pytest.fixture(scope="module", autouse=True)
def _no_reaper() -> Iterator[None]:
    """Testcontainers would start a container from a registry, which removes what a killed test leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testcontainers.core.config.testcontainers_config.ryuk_disabled", True)
        yield


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The base of the runtime image, with the label of images that tests build: what is built on it inherits that."""
    runtime = os.environ.get("PERSTACK_RUNTIME_IMAGE") or BACKENDS.get("docker").default_image()
    above = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", runtime))[BASE_LABEL]
    name = f"perstack-orch-test-base:{os.getpid()}"
    command = ["docker", "build", "--quiet", "--label", f"{IMAGE_OF}={os.getpid()}", "--tag", name, "-"]
    subprocess.run(command, input=f"FROM {above}\n", text=True, capture_output=True, timeout=60, check=True)
    yield name
    docker("image", "rm", "--force", name)


def build(project: Path, *arguments: str, **env: str) -> Result:
    """Run `perstack-orch build` in a project's directory."""
    environ = {name: os.environ[name] for name in FROM_HERE if name in os.environ} | env
    command = [*COMMAND, "build", *arguments]
    ran = subprocess.run(command, cwd=project, env=environ, capture_output=True, timeout=BUILD_SECONDS, check=False)
    return Result(ran.returncode, ran.stdout, ran.stderr.decode())


@contextmanager
def built(project: Path, name: str, expert: str, *options: str, **env: str) -> Iterator[str]:
    """Build an image, and remove it afterwards."""
    result = build(project, expert, "-t", name, *options, **env)
    assert result.code == 0, result.stderr
    assert result.stdout.decode() == f"{name}\n"
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, base: str) -> Iterator[str]:
    """The image of the example, whose directory also has secrets."""
    project = tmp_path_factory.mktemp("fitness")
    for name in ("perstack.toml", "replies.json"):
        shutil.copy(EXAMPLE / name, project)
    (project / ".env").write_text(f"ANTHROPIC_API_KEY={CANARY}\n")
    (project / ".env.local").write_text(f"EXTRA_TOKEN={CANARY}\n")
    with built(project, NAME, "fitness-assistant", "--base", base, OPENAI_API_KEY=CANARY) as name:
        yield name


def run(image: str, *words: str, volume: str, user: str | None = None, **env: str) -> Result:
    """Run a container of an image to its end, without a network, with testcontainers."""
    options: dict[str, Any] = {"network_mode": "none"} | ({} if user is None else {"user": user})
    made = DockerContainer(image).with_command(list(words)).with_volume_mapping(volume, "/workspace", "rw")
    with made.with_envs(**env).with_kwargs(**options) as container:
        code = container.get_wrapped_container().wait(timeout=120)["StatusCode"]
        stdout, stderr = container.get_logs()
    return Result(code, stdout, stderr.decode())


def inspected(image: str) -> dict[str, Any]:
    """Return what the engine knows about an image."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def test_it_is_small_and_has_what_registries_show(image: str, base: str) -> None:
    """It has at most 400 MB, an unprivileged user, the Expert in its entrypoint, and the labels of the OCI."""
    found = inspected(image)
    assert found["Size"] <= MOST_BYTES
    config = found["Config"]
    assert (config["User"], config["Entrypoint"]) == ("65532:65532", ["run-expert", "fitness-assistant"])
    labels: Mapping[str, str] = config["Labels"]
    created = labels["org.opencontainers.image.created"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", created)
    expected = {
        "org.opencontainers.image.title": "fitness-assistant",
        "org.opencontainers.image.version": "1.0.0",
        "org.opencontainers.image.base.name": base,
        "perstack.ai/orchestrator": VERSION,
    }
    assert expected.items() <= labels.items()
    assert "org.opencontainers.image.revision" not in labels
    assert "perstack.ai/source" not in labels, "`image prune` removes images with it"


def test_each_user_has_a_workspace_of_their_own(image: str, tmp_path: Path) -> None:
    """Two users, two directories: each gets separate files and records, as a separate user, and stdout has events."""
    for name, uid in (("alice", 4001), ("bob", 4002)):
        workspace = tmp_path / name
        ran = run(image, FIRST, volume=owned(workspace, uid), user=f"{uid}:{uid}", ANTHROPIC_API_KEY=CANARY)
        assert ran.code == 0, ran.stderr
        assert ran.types[-1] == "completeRun"
        assert len(list((workspace / "perstack" / "jobs").iterdir())) == 1
        everything = [path for path in workspace.rglob("*") if path.is_file()]
        assert {path.stat().st_uid for path in everything} == {uid}
        assert not any(CANARY.encode() in path.read_bytes() for path in everything)
        assert CANARY not in ran.stdout.decode() + ran.stderr


def test_another_container_continues_the_job_of_the_volume(image: str) -> None:
    """--continue works across containers on one volume, which takes its owner from the image."""
    volume = f"perstack-orch-test-{os.getpid()}"
    docker("volume", "create", volume)
    try:
        first, second = run(image, FIRST, volume=volume), run(image, "--continue", SECOND, volume=volume)
    finally:
        docker("volume", "rm", volume)
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert len({decode(line).job_id for line in (first.stdout + second.stdout).splitlines()}) == 1
    assert "Well done" in second.of(CompleteRun)[-1].text


def owned(path: Path, owner: int) -> str:
    """Make a workspace for a user."""
    path.mkdir()
    os.chown(path, owner, owner)
    return str(path)


def test_it_runs_as_an_unprivileged_user_by_default(image: str, tmp_path: Path) -> None:
    """Without another user it is the image's own; a warning states that the container is the sandbox."""
    ran = run(image, FIRST, volume=owned(tmp_path / "workspace", 65532))
    assert ran.code == 0, ran.stderr
    assert (tmp_path / "workspace" / "fitness-log.md").stat().st_uid == 65532
    assert "the container around this is the sandbox" in ran.stderr
    assert "gives no isolation" not in ran.stderr


@pytest.mark.parametrize(
    ("user", "words"),
    [(None, "/workspace is not writable for user 65532"), ("0", "never run as root")],
)
def test_a_user_who_cannot_work_there_is_refused(image: str, tmp_path: Path, user: str | None, words: str) -> None:
    """One sentence with the remedy, exit 2, nothing on stdout."""
    ran = run(image, FIRST, volume=owned(tmp_path / "workspace", 4003), user=user)
    refused(ran, 2, words, "--user")
    assert len(ran.stderr.splitlines()) == 1


def found_in(image: str, word: str) -> bool:
    """Whether a word is anywhere in a saved image: its layers, its configuration, or its history."""
    command = ["docker", "save", image]
    saved = subprocess.run(command, capture_output=True, timeout=300, check=True).stdout
    word_bytes = word.encode()
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isreg() else None
            content = b"" if file is None else file.read()
            # Newer engines compress the layers.
            if word_bytes in (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content):
                return True
    return False


def test_no_secret_is_in_the_image_or_its_history(image: str, base: str, tmp_path: Path) -> None:
    """Neither that of an env file nor that of a variable of the builder; the control finds a word of perstack.toml."""
    assert not found_in(image, CANARY)
    project = Project.make(tmp_path / "control", "docker", ONE.replace("Do it.", CANARY), {"one": [say("x")]})
    with built(project.directory, f"{NAME}-control", "one", "--base", base) as control:
        assert found_in(control, CANARY)


def test_packages_of_skills_are_inside(tmp_path: Path) -> None:
    """A skill from PyPI works without a network and without a registry; what is not inside is named."""
    project = Project.make(tmp_path / "project", "docker", TIME, TELL).directory
    refused(build(project, "solo", "-t", f"{NAME}-time"), 2, "perstack.lock does not exist", "perstack-orch install")
    environ = {name: os.environ[name] for name in FROM_HERE if name in os.environ}
    subprocess.run([*COMMAND, "install"], cwd=project, env=environ, capture_output=True, timeout=300, check=True)
    workspace = tmp_path / "workspace"
    owned(workspace, 65532)
    with built(project, f"{NAME}-time", "solo") as image:
        assert inspected(image)["Size"] <= MOST_BYTES
        ran = run(image, "go", volume=str(workspace))
        assert ran.code == 0, ran.stderr
        assert "Asia/Tokyo" in str(ran.of(ResolveToolResults)[0].tool_results)
        assert not (workspace / "perstack" / "packages").exists()
        listed = docker("run", "--rm", "--entrypoint", "ls", image, "/usr/local/bin").split()
        assert listed == ["perstack-orch", "run-expert"]
        (workspace / "other.toml").write_text((project / "perstack.toml").read_text().replace("-time", "-git", 1))
        other = run(image, "--config", "/workspace/other.toml", "go", volume=str(workspace))
        assert (other.code, other.stdout) == (3, b"")
        assert "package 'mcp-server-git' is not in /opt/perstack/packages" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("one",), ("the image has no name", "-t IMAGE")),
        (("absent", "-t", NAME), ("Expert 'absent' is not in",)),
        (("one", "-t", NAME, "--config", "absent.toml"), ("absent.toml",)),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """One sentence, exit 2, and no image."""
    project = Project.make(tmp_path / "project", "docker", ONE, {"one": [say("x")]}).directory
    refused(build(project, *arguments), 2, *words)


def test_a_stale_lock_is_refused(tmp_path: Path) -> None:
    """A lock that was written for another definition would give the image other tools than were inspected."""
    project = Project.make(tmp_path / "project", "docker", TIME, TELL).directory
    (project / "perstack.lock").write_text(
        'version = "1"\ngeneratedAt = 1\nconfigPath = "perstack.toml"\n[experts.solo]\nkey = "solo"\n'
    )
    refused(build(project, "solo", "-t", NAME), 2, "was written for another definition", "perstack-orch install")


def test_a_secret_in_a_file_is_refused(tmp_path: Path) -> None:
    """The value of a secret variable in perstack.toml would be in the image."""
    project = Project.make(tmp_path / "project", "docker", ONE.replace("Do it.", CANARY), {"one": [say("x")]}).directory
    (project / ".env").write_text(f"EXTRA_TOKEN={CANARY}\n")
    result = build(project, "one", "-t", NAME)
    refused(result, 2, "perstack.toml has the value of a secret variable")
    assert CANARY not in result.stderr
