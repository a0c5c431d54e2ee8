"""A package from outside the repository, built and installed, adds a provider and a backend."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire.event import CompleteRun
from tests.support.project import ONE, Project, refused

EXAMPLE = Path(__file__).parent / "example"
SECONDS = 300


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package and install it, without a network, into a separate directory."""
    target = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--offline", "--no-deps", "--no-cache", "--target", str(target))
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", *options, str(EXAMPLE)], check=True, timeout=SECONDS)
    return target


@dataclass
class Model:
    """A server that the provider `lines` calls; it gives one reply after the other, and keeps the requests."""

    replies: list[list[dict[str, Any]]]
    requests: list[dict[str, Any]]
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call."""
        self.requests.append(json.loads(await reader.readline()))
        usage = {"usage": {"input": 10, "output": 7}}
        writer.writelines(json.dumps(line).encode() + b"\n" for line in (*self.replies.pop(0), usage))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def model(*replies: list[dict[str, Any]]) -> AsyncIterator[Model]:
    """Serve a model."""
    served = Model(list(replies), [])
    async with await asyncio.start_server(served.answer, "127.0.0.1", 0, limit=1 << 24) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield served


def test_the_example_passes_the_shipped_suites(installed: Path) -> None:
    """The package runs the suites from the installed orchestrator, and every test passes."""
    options = ("-q", "-p", "no:cacheprovider", "-c", str(EXAMPLE / "pyproject.toml"), "--confcutdir", str(EXAMPLE))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(EXAMPLE), str(EXAMPLE / "tests")],
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1].split(" in ")[0]) == (0, "42 passed"), ran.stdout


async def test_a_job_runs_with_both(tmp_path: Path, installed: Path) -> None:
    """The Expert's files, events and end are the same as with what is built in; no Sandbox is left."""
    write = {"id": "c1", "name": "writeTextFile", "args": {"path": "plan.txt", "text": "squats"}}
    async with model([{"call": write}], [{"text": "Written."}]) as served:
        toml = f'[provider]\nproviderName = "lines"\n[provider.setting]\nbaseUrl = "{served.url}"\n'
        (tmp_path / "perstack.toml").write_text(toml + ONE)
        sandboxes = tmp_path / "run" / "logged-sandboxes"
        env = {"PYTHONPATH": str(installed), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
        project = Project(tmp_path, "logged")
        ended = await project.run("one", "Plan.", "--provider", "lines", env=env)
    assert ended.code == 0, ended.stderr
    assert [event.text for event in ended.of(CompleteRun)] == ["Written."]
    assert (project.workspace / "plan.txt").read_text() == "squats"
    assert len(served.requests) == 2
    assert (sandboxes.is_dir(), list(sandboxes.iterdir())) == (True, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backend", "loged"), "use one of docker, kubernetes, process, logged; did you mean 'logged'?"),
        (("--provider", "linez"), "openai, scripted; did you mean 'lines'?"),
    ],
)
async def test_an_unknown_name_lists_what_is_installed(
    tmp_path: Path, installed: Path, options: tuple[str, str], said: str
) -> None:
    """The sentence has the installed names, and the closest one."""
    project = Project.make(tmp_path, "process", ONE, {})
    refused(await project.run("one", "Plan.", *options, env={"PYTHONPATH": str(installed)}), 2, said)
