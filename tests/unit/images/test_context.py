"""What goes into the images, and how it is packed."""

import io
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from orchestrator.images.context import (
    BuildContext,
    orchestrator_context,
    runtime_context,
    runtime_image,
    shared_runtime_image,
)
from orchestrator.version import VERSION

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSIDE = {"__init__.py", "errors.py", "version.py", "disk", "wire", "runtime"}


def test_a_sandbox_has_only_the_modules_it_may_import() -> None:
    """No module of the host's side is in the image of Sandboxes; the rest is the Dockerfile and programs."""
    files = runtime_context().files
    assert {path.split("/")[1] for path in files if path.startswith("orchestrator/")} == INSIDE
    assert {path for path in files if not path.startswith("orchestrator/")} == {
        *("Dockerfile", "requirements.txt"),
        *(f"bin/{name}" for name in ("node", "npm", "npx", "uv", "uvx")),
    }
    assert not any("__pycache__" in path for path in files)


def test_the_orchestrator_has_the_whole_package() -> None:
    """Each module of the package is in its image, and the programs of both images."""
    files = orchestrator_context().files
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "orchestrator").rglob("*.py")}
    assert modules <= files.keys()
    assert {"bin/uvx", "bin/run-expert", "bin/perstack-orch"} <= files.keys()
    assert files["Dockerfile"] != runtime_context().files["Dockerfile"]


@pytest.mark.parametrize(
    "changed", [{"a": b"2", "bin/b": b""}, {"c": b"1", "bin/b": b""}, {"a": b"1"}, {"a": b"1bin/b", "": b""}]
)
def test_the_digest_changes_with_names_and_contents(changed: dict[str, bytes]) -> None:
    """Contexts with other files, names or contents have other digests; the order does not count."""
    context = BuildContext({"a": b"1", "bin/b": b""})
    assert context.digest == BuildContext({"bin/b": b"", "a": b"1"}).digest
    assert BuildContext(changed).digest != context.digest


def test_the_name_has_the_version_and_the_digest() -> None:
    """So a changed checkout has another image; the name for other machines has the version only."""
    digest = runtime_context().digest
    assert runtime_image() == f"perstack-orch-runtime:{VERSION}-{digest[:12]}"
    assert shared_runtime_image() == f"perstack-orch-runtime:{VERSION}"


def test_the_archive_has_the_files_of_root() -> None:
    """Programs are executable whatever their mode here, other files are not; nothing follows the end of the archive."""
    packed = BuildContext({"bin/x": b"#!/bin/sh\n", "Dockerfile": b"F" * 513}).to_tar()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = {each.name: (each.mode, each.uid, tar.extractfile(each)) for each in tar}
    assert {name: (mode, uid, file and file.read()) for name, (mode, uid, file) in found.items()} == {
        "bin/x": (0o755, 0, b"#!/bin/sh\n"),
        "Dockerfile": (0o644, 0, b"F" * 513),
    }
    assert len(packed) == 512 * (1 + 2 + 1 + 1 + 2)


def test_the_locked_packages_are_those_of_the_lock() -> None:
    """The files in the package are what uv.lock has."""
    command = [str(ROOT / "dev" / "locked-requirements"), "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_process_needs_what_a_sandbox_has() -> None:
    """The extra for `--backend process` and the image's group name the same packages, but for the host's own."""
    project = PROJECT["project"]
    image = PROJECT["dependency-groups"]["sandbox"]
    assert sorted(project["optional-dependencies"]["process"]) == sorted(set(image) - set(project["dependencies"]))


def test_old_extras_install_nothing_but_the_extra_that_replaces_them() -> None:
    """Install lines of the last release work: each name exists, and adds at most the packages of a Sandbox."""
    extras = PROJECT["project"]["optional-dependencies"]
    old = {name: extras[name] for name in extras.keys() - {"process", "testing"}}
    dependencies = ("host", "kubernetes", "anthropic", "openai", "google")
    assert old == {name: [] for name in dependencies} | {
        name: ["perstack-orch[process]"] for name in ("skills", "packages", "all")
    }
