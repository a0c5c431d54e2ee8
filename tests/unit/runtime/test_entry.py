import json
from pathlib import Path

import pytest

from orchestrator.runtime.entry import NoProgramError, npm_entry
from orchestrator.wire.install import Installed, Package, PackageKind


def npm(
    directory: Path, bins: object, program: str | None = None, *, shebang: str = "#!/usr/bin/env node"
) -> Installed:
    """What is found of a package @a/kit whose manifest declares `bins`."""
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
    ],
)
def test_the_program_that_npx_would_run(tmp_path: Path, bins: object, program: str | None) -> None:
    """That asked for, that of the package's own name, or the only one."""
    entry = "node_modules/@a/kit/cli.js"
    assert npm(tmp_path, bins, program) == Installed(name="@a/kit", version="1.2.3", entry=entry, runs_on_node=True)


def test_what_is_no_script_of_node_is_started_as_it_is(tmp_path: Path) -> None:
    """Its first line says what runs it."""
    assert not npm(tmp_path, "cli.js", shebang="#!/bin/sh").runs_on_node


@pytest.mark.parametrize("bins", [None, {"a": "cli.js", "b": "cli.js"}])
def test_no_program_that_could_be_meant(tmp_path: Path, bins: object) -> None:
    """Said with those there are."""
    with pytest.raises(NoProgramError, match=r"no program 'kit': it has (none|a, b)"):
        npm(tmp_path, bins)
