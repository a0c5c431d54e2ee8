"""Files of the workspace, which the Experts of a job change at once, and which a full disk must not destroy."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire.event import ResolveToolResults
from orchestrator.wire.message import TextPart
from tests.support.project import ONE, Make, Result, ask, say, use

WRITERS = ("a", "b", "c", "d")
EDITS = 12
OTHER = "a line that no Run edits\n" * 20_000
"""Half a megabyte, so that a change takes a moment."""

TEAM = f"[experts.boss]\ninstruction = 'Lead.'\ndelegates = {json.dumps(WRITERS)}\n" + "".join(
    f"[experts.{name}]\ndescription = 'Edits.'\ninstruction = 'Edit.'\n" for name in WRITERS
)


def _lines(state: str, writers: Sequence[str]) -> str:
    return "".join(f"{name}-{number}: {state}\n" for name in writers for number in range(EDITS))


def _meet(path: str, names: Sequence[str], own: str) -> tuple[str, dict[str, Any]]:
    """A command that ends once each of `names` has come here."""
    script = f"touch {path}-{own}; while [ $(ls {path}-* | wc -l) -lt {len(names)} ]; do sleep 0.01; done"
    args = {"command": "sh", "args": ["-c", script], "env": {}, "cwd": ".", "stdout": False, "stderr": True}
    return ("exec", args)


def _edits(name: str) -> dict[str, Any]:
    """A reply that edits each line of one writer."""
    return use(
        *(
            (
                "editTextFile",
                {"path": "f", "oldText": f"{name}-{number}: open", "newText": f"{name}-{number}: done"},
            )
            for number in range(EDITS)
        )
    )


def _answers(result: Result, tool: str) -> list[str]:
    """What a tool answered, call by call, or the beginning of it where it is long."""
    return [
        part.text
        for event in result.of(ResolveToolResults)
        for answer in event.tool_results
        for part in answer.result
        if isinstance(part, TextPart) and answer.tool_name == tool
    ]


@pytest.mark.everywhere
@pytest.mark.in_production
async def test_edits_of_one_file_by_delegates_at_once_are_all_in_it(project: Make) -> None:
    """Each edit that was answered as done is there, and so is every other line."""
    script = {name: [use(_meet("ready", WRITERS, name)), _edits(name), say("done")] for name in WRITERS}
    write = use(("writeTextFile", {"path": "f", "text": _lines("open", WRITERS) + OTHER}))
    count = "grep -c ': done$' f; grep -cFx 'a line that no Run edits' f; wc -l < f"
    look = {"command": "sh", "args": ["-c", count], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    boss = [write, use(*(ask(name, "go") for name in WRITERS)), use(("exec", look)), say("done")]
    result = await project(TEAM, {"boss": boss, **script}).run("boss", "go")
    assert result.code == 0, result.stderr
    edits, others = EDITS * len(WRITERS), OTHER.count("\n")
    answers = _answers(result, "editTextFile")
    assert (len(answers), [answer for answer in answers if "error" in answer]) == (edits, [])
    counted = json.loads(_answers(result, "exec")[-1])["output"]
    assert list(map(int, counted.split())) == [edits, others, edits + others]


async def test_edits_of_one_file_by_two_jobs_at_once_are_all_in_it(project: Make) -> None:
    """Two orchestrators, each with its own store, work on one workspace."""
    made = project(ONE.replace("one", "a") + ONE.replace("one", "b"), {})
    made.script({name: [use(_meet("ready", "ab", name)), _edits(name), say("done")] for name in "ab"})
    made.workspace.mkdir(exist_ok=True)
    file = made.workspace / "f"
    file.write_text(_lines("open", "ab") + OTHER)
    if os.geteuid() == 0 and made.backend == "docker":
        for path in (made.workspace, file):
            os.chown(path, 65532, 65532)
    jobs = [made.run(name, "go", "--storage", f"store-{name}") for name in "ab"]
    for result in await asyncio.gather(*jobs):
        assert result.code == 0, result.stderr
        assert [answer for answer in _answers(result, "editTextFile") if "error" in answer] == []
    assert file.read_text() == _lines("done", "ab") + OTHER


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], check=True)  # noqa: S607 # wherever it is
    os.chown(directory, 65532, 65532)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)  # noqa: S607 # wherever it is


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system for all to see")
async def test_what_a_full_disk_has_no_room_for_leaves_the_old_content(project: Make) -> None:
    """Each way to change a file reports the full disk; a change that fits is made."""
    old, more = "old\n" * 1000, "x" * 2_000_000
    calls = [
        ("writeTextFile", {"path": "f", "text": more}),
        ("appendTextFile", {"path": "f", "text": more}),
        ("editTextFile", {"path": "f", "oldText": "old", "newText": more}),
        ("writeTextFile", {"path": "new", "text": more}),
        ("editTextFile", {"path": "f", "oldText": "old", "newText": "new"}),
    ]
    made = project(ONE, {"one": [*(use(call) for call in calls), say("done")]})
    with _small_disk(made.workspace):
        (made.workspace / "f").write_text(old)
        os.chown(made.workspace / "f", 65532, 65532)
        result = await made.run("one", "go")
        left = {path.name: path.read_text() for path in made.workspace.iterdir()}
    assert result.code == 0, result.stderr
    full = '{"error":"Error","message":"path \'%s\': No space left on device"}'
    assert _answers(result, "writeTextFile") == [full % "f", full % "new"]
    assert _answers(result, "appendTextFile") == [full % "f"]
    assert [answer == full % "f" for answer in _answers(result, "editTextFile")] == [True, False]
    assert left == {"f": old.replace("old", "new", 1)}
