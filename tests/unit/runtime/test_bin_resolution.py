import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.runtime.bin_resolution import NoProgramError, npm_entry, pypi_entry
from orchestrator.wire.package import Installed, Package, PackageKind


def npm(
    directory: Path, bins: object, program: str | None = None, *, shebang: str = "#!/usr/bin/env node"
) -> Installed:
    """Return the entry of a package @a/kit whose manifest declares `bins`."""
    home = directory / "node_modules/@a/kit"
    home.mkdir(parents=True)
    (home / "package.json").write_text(json.dumps({"name": "@a/kit", "version": "1.2.3", "bin": bins}))
    (home / "cli.js").write_text(f"{shebang}\n")
    package = Package(slug="s", kind=PackageKind.NPM, name="@a/kit", spec="@a/kit", program=program)
    return npm_entry(directory, package)


@pytest.mark.parametrize(
    ("bins", "program"),
    [
        ("./cli.js", None),
        ({"kit": "cli.js", "other": "x.js"}, None),
        ({"something": "cli.js"}, None),
        ({"kit": "x.js", "other": "cli.js"}, "other"),
        ({"a": "cli.js", "a-mcp": "./cli.js"}, None),
    ],
)
def test_the_program_that_npx_would_run(tmp_path: Path, bins: object, program: str | None) -> None:
    """It is the requested one, else that of the package's own name, else the only one, whatever its names."""
    entry = "node_modules/@a/kit/cli.js"
    assert npm(tmp_path, bins, program) == Installed(name="@a/kit", version="1.2.3", entry=entry, runs_on_node=True)


def test_what_is_no_script_of_node_is_started_as_it_is(tmp_path: Path) -> None:
    """A file whose first line names another interpreter does not run on Node."""
    assert not npm(tmp_path, "cli.js", shebang="#!/bin/sh").runs_on_node


@pytest.mark.parametrize("bins", [None, {"a": "cli.js", "b": "x.js"}])
def test_no_program_that_could_be_meant(tmp_path: Path, bins: object) -> None:
    """The error lists the package's programs."""
    with pytest.raises(NoProgramError, match=r"no program 'kit': it has (none|a, b)"):
        npm(tmp_path, bins)


def pypi(directory: Path, scripts: Sequence[str], points: Sequence[str] = (), program: str | None = None) -> Installed:
    """The entry of a package kit with `scripts`, of which `points` are entry points, next to a foreign a-tool."""
    libraries = directory / "lib/python3.11/site-packages"
    described = libraries / "kit-1.2.3.dist-info"
    for made in (described, directory / "bin"):
        made.mkdir(parents=True)
    for name in (*scripts, "a-tool", "python"):
        (directory / "bin" / name).touch()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: Kit\nVersion: 1.2.3\n")
    named = "".join(f"{point} = kit:main\n" for point in points)
    (described / "entry_points.txt").write_text(f"[console_scripts]\n{named}")
    listed = [f"../../../bin/{name}" for name in scripts] + ["kit/bin/no-script", "kit-1.2.3.dist-info/METADATA"]
    (described / "RECORD").write_text("".join(f"{path},,\n" for path in listed))
    package = Package(slug="s", kind=PackageKind.PYPI, name="kit", spec="kit", program=program)
    return pypi_entry(directory, package)


@pytest.mark.parametrize(
    ("scripts", "points", "program", "entry"),
    [
        (("kit", "other"), ("kit", "other"), None, "kit"),
        (("kit", "other"), (), None, "kit"),
        (("something",), ("something",), None, "something"),
        (("something",), (), None, "something"),
        (("something", "more.sh"), ("something",), None, "something"),
        (("kit", "something"), ("something",), None, "kit"),
        (("kit", "other"), (), "other", "other"),
        ((), (), "a-tool", "a-tool"),
    ],
)
def test_the_program_that_uvx_would_run(
    tmp_path: Path, scripts: Sequence[str], points: Sequence[str], program: str | None, entry: str
) -> None:
    """It is the requested one, else that of the package's own name, else the only one, declared or shipped."""
    roundabout = tmp_path / ".." / tmp_path.name
    assert pypi(roundabout, scripts, points, program) == Installed(name="Kit", version="1.2.3", entry=f"bin/{entry}")


@pytest.mark.parametrize(
    ("scripts", "points", "said"),
    [((), (), "it has none"), (("a", "b"), (), "it has a, b"), (("a", "b", "c"), ("a", "b"), "it has a, b")],
)
def test_no_script_that_could_be_meant(
    tmp_path: Path, scripts: Sequence[str], points: Sequence[str], said: str
) -> None:
    """The error lists the scripts of the package itself."""
    with pytest.raises(NoProgramError, match=f"no program 'kit': {said}$"):
        pypi(tmp_path, scripts, points)
