"""The jobs that are measured: the fitness example, teams of any width, chains of any depth; models may take time."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.project import Project, ask, say, use

FITNESS = Path(__file__).parents[1] / "examples" / "fitness"
QUERY = "Start today's session"

Replies = Mapping[str, Sequence[Mapping[str, Any]]]


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that a Sandbox's user may pass through, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def fitness(directory: Path, delay_ms: int) -> Project:
    """The example of three Runs and seven model calls, each of which takes `delay_ms` milliseconds."""
    toml = (FITNESS / "perstack.toml").read_text()
    replies = json.loads((FITNESS / "replies.json").read_text())
    return _made(directory, toml, replies, delay_ms)


def team(directory: Path, width: int, delay_ms: int, rounds: int = 1) -> Project:
    """A coordinator whose reply calls `width` delegates at once, `rounds` times; each answers with its first reply."""
    calls = use(*(ask("aide", f"part {number}") for number in range(width)))
    replies = {"boss": [*[calls] * rounds, say("done")], "aide": [say("helped")]}
    return _made(directory, _toml(("boss", "aide"), ("aide", None)), replies, delay_ms)


def chain(directory: Path, depth: int, delay_ms: int) -> Project:
    """Experts that each delegate to the next, `depth` delegations deep."""
    names = [f"e{number}" for number in range(depth + 1)]
    following: list[str | None] = [*names[1:], None]
    replies = {
        name: [say("deep")] if below is None else [use(ask(below, "deeper")), say("up")]
        for name, below in zip(names, following, strict=True)
    }
    return _made(directory, _toml(*zip(names, following, strict=True)), replies, delay_ms)


def steps(directory: Path, count: int) -> Project:
    """An Expert that looks into its directory `count` times."""
    look = use(("listDirectory", {"path": "."}))
    return _made(directory, _toml(("boss", None)), {"boss": [*[look] * count, say("done")]}, 0)


def _toml(*experts: tuple[str, str | None]) -> str:
    return "".join(
        f'[experts.{name}]\ninstruction = "Work."\n' + (f'delegates = ["{below}"]\n' if below else "")
        for name, below in experts
    )


def _made(directory: Path, toml: str, replies: Replies, delay_ms: int) -> Project:
    shutil.rmtree(directory, ignore_errors=True)
    delayed = {expert: [{**reply, "delayMs": delay_ms} for reply in listed] for expert, listed in replies.items()}
    provider = "" if "[provider]" in toml else 'maxSteps = 1000\n[provider]\nproviderName = "scripted"\n'
    directory.mkdir(parents=True)
    (directory / "perstack.toml").write_text(provider + toml)
    (directory / "replies.json").write_text(json.dumps(delayed))
    project = Project(directory, "docker")
    project.workspace.mkdir()
    if os.geteuid() == 0:
        os.chown(project.workspace, 65532, 65532)
    return project
