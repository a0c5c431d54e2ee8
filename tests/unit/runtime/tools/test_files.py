"""The built-in file tools, called as the model calls them."""

import asyncio
import base64
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.emit import Emitter
from orchestrator.runtime.skills.builtin import BuiltinSession
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tools import move_file, text_file
from orchestrator.wire.expert import Expert
from orchestrator.wire.message import FileInlinePart, ImageInlinePart, ResultPart, TextPart, ToolCall
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL, BASE_TOOLS, StdioSkill
from tests.support.odd_trees import cleared, dig
from tests.support.scripted_host import a_run, expert

Tools = BuiltinSession


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    return directory


@pytest.fixture
def tools(workspace: Path) -> Tools:
    """A session with every tool."""
    return _open(workspace, expert())


def _open(workspace: Path, declared: Expert) -> BuiltinSession:
    state = workspace.parent
    (state / "events.jsonl").touch()
    emitter = Emitter(a_run(), state, lambda _: None)
    around = ToolContext(
        workspace, state, emitter, lambda: "part", lambda _: pytest.fail("no forwarder is needed"), nullcontext
    )
    return BuiltinSession(declared, Grant(), around, [])


async def _part(tools: Tools, name: str, **args: Any) -> ResultPart:
    call = ToolCall(id="c", skill_name=BASE_SKILL, tool_name=name, args=args)
    async with asyncio.timeout(10):
        result = await tools.call(call)
    assert (result.id, result.skill_name, result.tool_name, result.is_error) == ("c", BASE_SKILL, name, None)
    return result.result[0]


async def _call(tools: Tools, name: str, **args: Any) -> Any:
    part = await _part(tools, name, **args)
    assert isinstance(part, TextPart)
    return json.loads(part.text)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_the_host_knows_what_is_built_in(tools: Tools) -> None:
    """The host's list of built-in tools, used to find name conflicts before a Run, is complete."""
    assert tuple(tool.name for tool in tools.tools()) == BASE_TOOLS


async def test_write_read_append_edit(tools: Tools, workspace: Path) -> None:
    """Text goes in and comes out, with the results of docs/reference/perstack.md#built-in-tools."""
    assert await _call(tools, "writeTextFile", path="a.txt", text="one\ntwo\n") == {
        "path": "/workspace/a.txt",
        "text": "one\ntwo\n",
    }
    assert await _call(tools, "appendTextFile", path="a.txt", text="three") == {
        "path": "/workspace/a.txt",
        "text": "three",
    }
    assert await _call(tools, "editTextFile", path="a.txt", newText="2", oldText="two") == {
        "path": "/workspace/a.txt",
        "newText": "2",
        "oldText": "two",
    }
    assert await _call(tools, "readTextFile", path="a.txt") == {
        "path": "a.txt",
        "content": "one\n2\nthree",
        "from": 0,
        "to": 3,
    }
    assert (workspace / "a.txt").stat().st_mode & 0o777 == 0o644
    await _call(tools, "writeTextFile", path="a.txt", text="x")
    assert (workspace / "a.txt").read_text() == "x"


@pytest.mark.behaviour("F7")
@pytest.mark.parametrize(
    ("bounds", "content"),
    [
        ({"from": 1, "to": 2}, "b"),
        ({"to": 1}, "a"),
        ({"from": 2}, "c\n"),
        ({"from": 9}, ""),
        ({"from": 1, "to": 1}, ""),
    ],
)
async def test_lines_are_counted_from_0_end_exclusive(
    bounds: dict[str, int], content: str, tools: Tools, workspace: Path
) -> None:
    """A range of lines is 0-based and end-exclusive."""
    (workspace / "a").write_text("a\nb\nc\n")
    assert (await _call(tools, "readTextFile", path="a", **bounds))["content"] == content


@pytest.mark.behaviour("F7")
@pytest.mark.parametrize("new", ["$&", "$1", "\\1", "{0}"])
async def test_an_edit_replaces_the_first_exact_match(new: str, tools: Tools, workspace: Path) -> None:
    """The first exact match is replaced literally; line endings become LF; without a match it is an error."""
    (workspace / "a").write_bytes(b"x\r\nx\r\n")
    await _call(tools, "editTextFile", path="a", newText=new, oldText="x\r\n")
    assert (workspace / "a").read_bytes() == f"{new}x\n".encode()
    assert (await _call(tools, "editTextFile", path="a", newText="", oldText="zz"))["error"] == "Error"


@pytest.mark.behaviour("F7")
async def test_too_large_a_text_names_from_and_to(
    tools: Tools, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of it can be read."""
    monkeypatch.setattr("orchestrator.runtime.tools.read_text_file.READ_BYTES", 10)
    (workspace / "a").write_text("12345\n" * 5)
    assert "from and to" in (await _call(tools, "readTextFile", path="a"))["message"]
    assert (await _call(tools, "readTextFile", path="a", **{"from": 3, "to": 4}))["content"] == "12345"


@pytest.mark.behaviour("F7")
async def test_images_and_pdfs_are_bytes_within_bounds(tools: Tools, workspace: Path) -> None:
    """Images and PDFs are returned as bytes; other types and larger files are errors."""
    for name in ("a.PNG", "a.pdf", "a.txt"):
        (workspace / name).write_bytes(b"\x89data")
    data = base64.b64encode(b"\x89data").decode()
    image = ImageInlinePart(id="part", encoded_data=data, mime_type="image/png")
    assert await _part(tools, "readImageFile", path="a.PNG") == image
    pdf = FileInlinePart(id="part", encoded_data=data, mime_type="application/pdf")
    assert await _part(tools, "readPdfFile", path="a.pdf") == pdf
    assert "unsupported" in (await _call(tools, "readImageFile", path="a.txt"))["message"]
    for name, path in (("readImageFile", "empty.png"), ("readPdfFile", "empty.pdf")):
        (workspace / path).touch()
        assert (await _call(tools, name, path=path))["message"] == f"path {path!r} is empty"
    os.truncate(workspace / "a.PNG", 15 * 1024 * 1024 + 1)
    os.truncate(workspace / "a.pdf", 30 * 1024 * 1024 + 1)
    assert "15 MiB" in (await _call(tools, "readImageFile", path="a.PNG"))["message"]
    assert "30 MiB" in (await _call(tools, "readPdfFile", path="a.pdf"))["message"]


@pytest.mark.behaviour("F4", "F5")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("readTextFile", {}),
        ("writeTextFile", {"text": ""}),
        ("appendTextFile", {"text": ""}),
        ("editTextFile", {"oldText": "secret", "newText": ""}),
        ("readImageFile", {}),
        ("readPdfFile", {}),
        ("getFileInfo", {}),
        ("listDirectory", {}),
    ],
)
async def test_every_tool_refuses_links(name: str, args: dict[str, str], tools: Tools, workspace: Path) -> None:
    """A link to outside is refused whatever its name, and its target is unchanged."""
    outside = workspace.parent / "secret"
    outside.write_text("secret")
    for link in ("l.png", "l.pdf"):
        (workspace / link).symlink_to(outside)
        if name not in ("readImageFile", "readPdfFile") or link.endswith(name[4:7].lower().replace("ima", "png")):
            assert "symbolic link" in (await _call(tools, name, path=link, **args))["message"]
    assert outside.read_text() == "secret"


@pytest.mark.behaviour("F3")
async def test_listings_skip_the_reserved_directory(tools: Tools, workspace: Path) -> None:
    """Entries are sorted, links are marked as such, names that are not Unicode cause no error."""
    for name in ("b", "Perstack", "sub"):
        (workspace / name).mkdir()
    (workspace / "sub" / "perstack").touch()
    (workspace / "a").write_text("four")
    (workspace / "dangling").symlink_to("nowhere")
    (workspace / os.fsdecode(b"z\xff")).touch()
    listing = await _call(tools, "listDirectory", path=".")
    assert listing["path"] == "/workspace"
    assert [(item["name"], item["type"]) for item in listing["items"]] == [
        ("a", "file"),
        ("b", "directory"),
        ("dangling", "symlink"),
        ("sub", "directory"),
        ("z?", "file"),
    ]
    assert (listing["items"][0]["size"], listing["items"][0]["path"]) == (4, "a")
    assert [item["name"] for item in (await _call(tools, "listDirectory", path="sub"))["items"]] == ["perstack"]


async def test_what_a_new_file_lacks_is_its_directory(tools: Tools) -> None:
    """If a parent is missing, the error is about the parent, not about the new file."""
    for name, args in (("writeTextFile", {"path": "new/a", "text": ""}), ("createDirectory", {"path": "new/d"})):
        message = f"path {args['path']!r}: its parent directory does not exist; create it first"
        assert (await _call(tools, name, **args))["message"] == message


async def test_calls_of_one_reply_that_change_files_lose_nothing(tools: Tools, workspace: Path) -> None:
    """All edits of one file are applied; of many moves to one destination one succeeds, and the other files remain."""
    lines = [f"line {number}: {'.' * 5_000}\n" for number in range(12)]
    (workspace / "lines").write_text("".join(lines))
    for number in range(12):
        (workspace / f"source-{number}").write_text(str(number))
    async with asyncio.TaskGroup() as calls:
        for number in range(12):
            edit = _call(tools, "editTextFile", path="lines", oldText=f"line {number}:", newText=f"edited {number}:")
            calls.create_task(edit)
        moves = [
            calls.create_task(_call(tools, "moveFile", source=f"source-{number}", destination="there"))
            for number in range(12)
        ]
    assert (workspace / "lines").read_text() == "".join(lines).replace("line", "edited")
    assert ["error" in move.result() for move in moves] == [False] + 11 * [True]
    assert len(_names(workspace)) == 13


async def test_a_move_replaces_nothing_that_came_meanwhile(
    tools: Tools, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that appears at the destination after the check is not replaced."""
    monkeypatch.setattr(move_file, "_exists", lambda *_: False)
    (workspace / "a").write_text("a")
    (workspace / "b").write_text("b")
    answer = await _call(tools, "moveFile", source="a", destination="b")
    assert answer["message"] == "path 'b' exists already"
    assert [(workspace / name).read_text() for name in "ab"] == ["a", "b"]


async def test_directories_are_made_moved_and_deleted(tools: Tools, workspace: Path) -> None:
    """Directories and files are created, moved and deleted, and each refusal is a sentence."""
    assert await _call(tools, "createDirectory", path="d") == {"path": "/workspace/d"}
    assert "exists already" in (await _call(tools, "createDirectory", path="d"))["message"]
    assert "parent" in (await _call(tools, "createDirectory", path="x/y"))["message"]
    (workspace / "d" / "f").touch()
    assert "not empty" in (await _call(tools, "deleteDirectory", path="d"))["message"]
    assert await _call(tools, "moveFile", source="d", destination="e") == {
        "source": "/workspace/d",
        "destination": "/workspace/e",
    }
    (workspace / "g").touch()
    assert "exists already" in (await _call(tools, "moveFile", source="e/f", destination="g"))["message"]
    assert "reserved" in (await _call(tools, "moveFile", source="e", destination="perstack"))["message"]
    assert "deleteDirectory" in (await _call(tools, "deleteFile", path="e"))["message"]
    assert "deleteFile" in (await _call(tools, "deleteDirectory", path="g"))["message"]
    assert await _call(tools, "deleteFile", path="g") == {"path": "/workspace/g"}
    assert await _call(tools, "deleteDirectory", path="e", recursive=True) == {"path": "/workspace/e"}
    assert "workspace itself" in (await _call(tools, "deleteDirectory", path=".", recursive=True))["message"]
    assert _names(workspace) == []


async def test_a_directory_of_any_depth_is_deleted(tools: Tools, workspace: Path) -> None:
    """A directory of any depth can be deleted; a missing one is reported as missing."""
    (workspace / "deep").mkdir()
    with cleared(workspace / "deep"):
        dig(workspace / "deep")
        assert await _call(tools, "deleteDirectory", path="deep", recursive=True) == {"path": "/workspace/deep"}
        assert _names(workspace) == []
    missing = await _call(tools, "deleteDirectory", path="deep", recursive=True)
    assert missing["message"] == "path 'deep': it does not exist"


async def test_file_info(tools: Tools, workspace: Path) -> None:
    """Both paths are absolute, as Perstack returns them; a missing file is an error."""
    (workspace / "a.png").write_bytes(b"x" * 2048)
    info = await _call(tools, "getFileInfo", path="a.png")
    assert {key: info[key] for key in ("exists", "path", "absolutePath", "extension", "type", "mimeType")} == {
        "exists": True,
        "path": "/workspace/a.png",
        "absolutePath": "/workspace/a.png",
        "extension": ".png",
        "type": "file",
        "mimeType": "image/png",
    }
    assert (info["sizeFormatted"], info["permissions"]["executable"]) == ("2.00 KB", False)
    assert (await _call(tools, "getFileInfo", path="."))["type"] == "directory"
    assert "does not exist" in (await _call(tools, "getFileInfo", path="no"))["message"]


async def test_health_check(tools: Tools) -> None:
    """The result has Perstack's fields and reports that all is well."""
    assert (await _call(tools, "healthCheck"))["status"] == "ok"


@pytest.mark.behaviour("F8")
async def test_todos_count_from_0_and_done_stays_done(tools: Tools) -> None:
    """Ids count from 0, completed items stay completed, clear restarts, completion lists only open items."""
    todos = await _call(tools, "todo", newTodos=["a", "b"])
    assert [item["id"] for item in todos["todos"]] == [0, 1]
    await _call(tools, "todo", completedTodos=[0, 7])
    assert [item["completed"] for item in (await _call(tools, "todo"))["todos"]] == [True, False]
    open_item = {"id": 1, "title": "b", "completed": False}
    assert await _call(tools, "attemptCompletion") == {"remainingTodos": [open_item]}
    assert await _call(tools, "clearTodo") == {"todos": []}
    assert await _call(tools, "attemptCompletion") == {}
    assert (await _call(tools, "todo", newTodos=["c"]))["todos"][0]["id"] == 0


@pytest.mark.parametrize(
    "args", [{}, {"path": 1, "text": "x"}, {"path": "a"}, {"path": "a", "text": None}, {"path": True, "text": ""}]
)
async def test_bad_arguments_are_results(args: dict[str, Any], tools: Tools, workspace: Path) -> None:
    """Missing arguments and wrong types are error results, and nothing is done."""
    assert (await _call(tools, "writeTextFile", **args))["error"] == "InvalidArguments"
    assert _names(workspace) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"args": ["a", 1]}, "each item of exec: argument 'args' must be of type string"),
        ({"env": {"A": "a", "B": 1}}, "each value of exec: argument 'env' must be of type string"),
        ({"env": {"A": None}}, "each value of exec: argument 'env' must be of type string"),
    ],
)
async def test_what_is_in_an_argument_is_checked_too(args: dict[str, Any], message: str, tools: Tools) -> None:
    """Each item of a list and each value of an object is checked."""
    whole = {"command": "true", "args": [], "env": {}, "cwd": ".", "stdout": True, "stderr": True} | args
    assert await _call(tools, "exec", **whole) == {"error": "InvalidArguments", "message": message}


@pytest.mark.behaviour("E4")
async def test_pick_and_omit_decide_which_tools_there_are(workspace: Path) -> None:
    """Omitted tools are removed, and only picked ones of the rest are offered."""
    skill = StdioSkill(
        name=BASE_SKILL, command="npx", package_name=BASE_SKILL, pick=("exec", "todo", "none"), omit=("exec",)
    )
    assert [tool.name for tool in _open(workspace, expert(skills=(skill,))).tools()] == ["todo"]
    assert len(_open(workspace, expert(skills=())).tools()) == 17


def test_surrogates_never_reach_a_file() -> None:
    """Unpaired surrogates, which JSON can contain, do not break a write."""
    assert text_file.encode("a\ud800b") == b"a?b"
