"""The first job of a new installation compiles nothing: to compile all that a job imports takes a second or two."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fake_anthropic
from tests.support.engine import runtime_image
from tests.support.fake_http import fake_http
from tests.support.project import FROM_HERE, ONE

ROOT = Path(__file__).parents[2]
DONE = fake_anthropic.stream(
    [fake_anthropic.start(), *fake_anthropic.text(0, "done"), *fake_anthropic.stop("end_turn")]
)
IMPORT_ALL = """
import importlib, pkgutil
import orchestrator.runtime as runtime
for found in pkgutil.walk_packages(runtime.__path__, "orchestrator.runtime."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def copy_checkout(to: Path) -> None:
    """Copy what a clone would have, with the changes that are not committed yet."""
    names = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!tests")
    listed = subprocess.run(names, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def compiled(checkout: Path) -> dict[Path, int]:
    """When each file of bytecode was written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in checkout.rglob("*.pyc")}


async def made(checkout: Path) -> None:
    """Run its setup as a user whose interpreter never writes bytecode."""
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    setup = await asyncio.create_subprocess_exec(checkout / "dev" / "setup", env=env, stderr=subprocess.PIPE)
    _, said = await asyncio.wait_for(setup.communicate(), 300)
    assert setup.returncode == 0, said.decode()


async def test_the_first_job_of_a_new_checkout_compiles_nothing(tmp_path: Path) -> None:
    """`make setup` compiles the package and all that it needs."""
    checkout, project = tmp_path / "checkout", tmp_path / "project"
    copy_checkout(checkout)
    await made(checkout)
    before = compiled(checkout)
    assert checkout / "orchestrator" / "cli" / "__pycache__" / f"entry.{sys.implementation.cache_tag}.pyc" in before
    project.mkdir()
    (project / "perstack.toml").write_text(ONE)
    async with fake_http(DONE) as api:
        given = {name: os.environ[name] for name in FROM_HERE if name in os.environ}
        job = await asyncio.create_subprocess_exec(
            *(checkout / ".venv" / "bin" / "perstack-orch", "run", "one", "go", "--backend", "process"),
            env=given | {"ANTHROPIC_API_KEY": "canary-0123456789", "ANTHROPIC_BASE_URL": api.url},
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(job.communicate(), 120)
    assert job.returncode == 0, said.decode()
    assert {path for path, when in compiled(checkout).items() if before.get(path) != when} == set()


@pytest.mark.docker
def test_the_image_has_all_that_a_sandbox_imports_compiled() -> None:
    """The standard library, too: some base images come without its bytecode, and a Sandbox can write none."""
    interpreter = ("--read-only", "--network", "none", "--entrypoint", "/opt/perstack/bin/python")
    command = ("docker", "run", "--rm", *interpreter, runtime_image(), "-I", "-v", "-c", IMPORT_ALL)
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    said = done.stderr.decode(errors="replace").splitlines()
    assert done.returncode == 0, said[-5:]
    loaded = [line.removeprefix("# code object from ") for line in said if line.startswith("# code object from ")]
    assert any("runtime/__pycache__/loop." in line for line in loaded)
    assert [line for line in loaded if not line.endswith(".pyc'")] == []
