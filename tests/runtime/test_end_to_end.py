"""The runtime as a real process, against the host's end of a real socket."""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime.skills.startup import is_external_base
from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.generation import FinishReason, Reasoning
from orchestrator.wire.message import (
    ExpertMessage,
    FileInlinePart,
    ImageInlinePart,
    TextPart,
    ThinkingPart,
    ToolMessage,
    ToolResult,
)
from orchestrator.wire.run import Delegate, EventDetail, Grant
from orchestrator.wire.skill import BASE_SKILL, SseSkill, StdioSkill
from tests.support.scripted_host import (
    SECONDS,
    a_run,
    calls,
    ended,
    expert,
    says,
    scripted_host,
    start,
    start_runtime,
    work,
)

TOOLS = Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py"
BEGIN = ["initializeRuntime", "skillConnected", "startRun", "startGeneration"]
STEP = ["callTools", "resolveToolResults", "finishToolCall", "continueToNextStep", "startGeneration"]
RETRY = ["retry", "continueToNextStep", "startGeneration"]
END = "skillDisconnected"


@pytest.mark.behaviour("C2")
async def test_text_alone_completes_the_run(tmp_path: Path) -> None:
    """The spool holds the bytes of stdout, and the broker has the last checkpoint first."""
    run, host = await work(tmp_path, a_run(), says("All done"))
    assert (run.code, run.stderr) == (0, "")
    assert run.types == [*BEGIN, END, "completeRun"]
    assert run.spool == run.stdout
    assert [event["seq"] for event in run.events] == list(range(1, 7))
    assert run.event("completeRun")["text"] == "All done"
    assert "messages" not in run.event("completeRun")["checkpoint"]
    assert [checkpoint.status for checkpoint in host.checkpoints] == [Status.COMPLETED]
    assert [message.type for message in host.checkpoints[0].messages] == [
        "instructionMessage",
        "userMessage",
        "expertMessage",
    ]


@pytest.mark.parametrize("detail", EventDetail)
async def test_full_events_carry_the_conversation(tmp_path: Path, detail: EventDetail) -> None:
    """With full detail, events carry the conversation as the model and the broker get it; by default they do not."""
    run, host = await work(
        tmp_path, a_run(events=detail), calls(("listDirectory", {"path": "."})), says("The workspace is empty")
    )
    shown = {
        (event["type"], name): value
        for event in run.events
        for name, value in event.items()
        if name == "messages" or (isinstance(value, dict) and "messages" in value)
    }
    if detail is EventDetail.DEFAULT:
        assert shown == {}
        return
    assert set(shown) == {
        ("startRun", "initialCheckpoint"),
        ("startGeneration", "messages"),
        ("continueToNextStep", "checkpoint"),
        ("continueToNextStep", "nextCheckpoint"),
        ("completeRun", "checkpoint"),
    }
    assert shown["startGeneration", "messages"] == [message.to_plain() for message in host.requests[-1].messages]
    assert shown["continueToNextStep", "checkpoint"] == host.checkpoints[0].to_plain()
    assert shown["completeRun", "checkpoint"] == host.checkpoints[-1].to_plain()


@pytest.mark.behaviour("C10")
async def test_completion_asks_for_the_result(tmp_path: Path) -> None:
    """After a tool and `attemptCompletion` the result is streamed in a turn without tools."""
    run, host = await work(
        tmp_path,
        a_run(),
        calls(("writeTextFile", {"path": "log.md", "text": "42"})),
        calls(("attemptCompletion", {})),
        says("It is written", reasoning=(Reasoning(text="so"),)),
    )
    assert (run.code, run.stderr) == (0, "")
    assert run.types == [
        *BEGIN,
        *STEP,
        "callTools",
        "attemptCompletion",
        "startStreamingReasoning",
        "streamReasoning",
        "completeStreamingReasoning",
        "startStreamingRunResult",
        "streamRunResult",
        "completeStreamingRunResult",
        END,
        "completeRun",
    ]
    assert run.spool == run.stdout
    assert (tmp_path / "workspace" / "log.md").read_text() == "42"
    assert [request.id for request in host.requests] == ["1/0", "2/1", "2/2"]
    assert host.requests[2].tools == ()
    assert [result.tool_name for result in host.results] == ["writeTextFile", "attemptCompletion"]
    # Both replies used the id `c0`.
    assert len({result.id for result in host.results}) == 2
    assert [event["stepNumber"] for event in run.events if "stepNumber" in event] == [1] * 6 + [2] * 10


@pytest.mark.behaviour("C12")
async def test_results_and_checkpoints_are_stored_before_their_events(tmp_path: Path) -> None:
    """The broker has them first, and the last checkpoint once skills are closed."""
    _, host = await work(tmp_path, a_run(), calls(("listDirectory", {"path": "."})), says("Done"))
    assert host.last_told == ["callTools", "finishToolCall", "skillDisconnected"]


@pytest.mark.behaviour("C9")
async def test_text_with_completion_is_the_result(tmp_path: Path) -> None:
    """There is no further generation."""
    run, host = await work(tmp_path, a_run(), calls(("attemptCompletion", {}), text="Ready"))
    assert run.types == [*BEGIN, "callTools", END, "completeRun"]
    assert run.event("completeRun")["text"] == "Ready"
    assert len(host.requests) == 1


@pytest.mark.behaviour("C8")
async def test_open_todos_keep_the_loop_going(tmp_path: Path) -> None:
    """With open todos, `attemptCompletion` is an ordinary result, and the list is in the checkpoint."""
    run, host = await work(
        tmp_path,
        a_run(),
        calls(("todo", {"newTodos": ["a"]})),
        calls(("attemptCompletion", {}), text="Ready"),
        says("Given up"),
    )
    assert run.types == [*BEGIN, *STEP, *STEP, END, "completeRun"]
    assert (host.checkpoints[-1].metadata or {})["todos"] == [{"id": 0, "title": "a", "completed": False}]


@pytest.mark.behaviour("F8")
async def test_todos_outlive_the_sandbox(tmp_path: Path) -> None:
    """A resumed Expert has its own todo list."""
    before = start(metadata={"todos": [{"id": 0, "title": "a", "completed": False}]})
    run, _ = await work(tmp_path, a_run(checkpoint=before), calls(("todo", {"completedTodos": [0]})), says("x"))
    text = run.event("resolveToolResults")["toolResults"][0]["result"][0]["text"]
    assert text == '{"todos":[{"id":0,"title":"a","completed":true}]}'


@pytest.mark.behaviour("F8")
async def test_todos_outlive_an_attempt_that_ended_within_its_step(tmp_path: Path) -> None:
    """Acknowledged results are not requested again, and their list is kept though no checkpoint had it."""
    part = TextPart(id="p", text="{}")
    known = ToolResult(id="c0", skill_name=BASE_SKILL, tool_name="todo", result=(part,))
    asked = calls(("todo", {"newTodos": ["a"]}), ("todo", {"newTodos": ["b"]}))
    run, host = await work(tmp_path, a_run(attempt=2, known_results=(known,)), asked, says("x"))
    first, second = run.event("resolveToolResults")["toolResults"]
    assert first["result"] == [part.to_plain()]
    titles = [item["title"] for item in json.loads(second["result"][0]["text"])["todos"]]
    assert titles == ["a", "b"]
    assert [item["title"] for item in (host.checkpoints[-1].metadata or {})["todos"]] == ["a", "b"]
    assert [result.id for result in host.results] == ["c1"]


@pytest.mark.behaviour("D1")
async def test_delegation_stops_the_run(tmp_path: Path) -> None:
    """Delegate calls end the container; the calls before them have results."""
    delegates = (Delegate(key="pro", name="pro", version="1.0.0"),)
    reply = calls(("pro", {"query": "Plan"}), ("listDirectory", {"path": "."}))
    run, host = await work(tmp_path, a_run(delegates=delegates), reply)
    assert (run.code, run.stderr) == (0, "")
    assert run.types == [*BEGIN, "callTools", "callDelegate", END, "stopRunByDelegate"]
    assert [call.tool_call_id for call in host.checkpoints[-1].delegate_to or ()] == ["c0"]
    assert [result.id for result in host.checkpoints[-1].partial_tool_results or ()] == ["c1"]


@pytest.mark.behaviour("C11")
async def test_the_step_limit_replaces_the_next_step(tmp_path: Path) -> None:
    """The Run stops at the limit."""
    run, host = await work(tmp_path, a_run(max_steps=1), calls(("listDirectory", {"path": "."})))
    assert run.types == [*BEGIN, *STEP[:3], END, "stopRunByExceededMaxSteps"]
    assert host.checkpoints[-1].status is Status.STOPPED_BY_EXCEEDED_MAX_STEPS


@pytest.mark.behaviour("C3")
async def test_empty_replies_end_in_an_error(tmp_path: Path) -> None:
    """Each empty reply is one retry; once the retries are used up, the Run stops by error."""
    run, host = await work(tmp_path, a_run(), *(says(""),) * 3)
    assert run.types == [*BEGIN, *RETRY, *RETRY, END, "stopRunByError"]
    error = run.event("stopRunByError")["error"]
    assert error["name"] == "MaxRetriesExceeded"
    assert host.checkpoints[-1].error is not None


@pytest.mark.behaviour("C17")
async def test_an_unknown_tool_is_an_error_result(tmp_path: Path) -> None:
    """The call is answered, and the Run completes."""
    run, _ = await work(tmp_path, a_run(), calls(("think", {})), says("Fine"))
    assert run.types == [*BEGIN, *STEP, END, "completeRun"]
    assert run.event("resolveToolResults")["toolResults"][0]["isError"] is True


@pytest.mark.behaviour("C7")
async def test_calls_of_one_reply_run_at_once(tmp_path: Path) -> None:
    """Two commands that wait for each other both finish, and their results are in call order."""
    shared = {"command": "sh", "env": {}, "cwd": ".", "stdout": True, "stderr": False, "timeout": 5000}
    (tmp_path / "workspace").mkdir()
    os.mkfifo(tmp_path / "workspace" / "pipe")
    asked = [("exec", shared | {"args": ["-c", script]}) for script in ("cat pipe", "echo met > pipe; echo second")]
    run, _ = await work(tmp_path, a_run(), calls(*asked), says("x"))
    texts = [result["result"][0]["text"] for result in run.event("resolveToolResults")["toolResults"]]
    assert texts == ['{"output":"met\\n"}', '{"output":"second\\n"}']


@pytest.mark.behaviour("C16")
async def test_tool_errors_are_results(tmp_path: Path) -> None:
    """The model gets the error about a missing file and continues."""
    run, _ = await work(tmp_path, a_run(), calls(("readTextFile", {"path": "no"})), says("Fine"))
    text = run.event("resolveToolResults")["toolResults"][0]["result"][0]["text"]
    assert text == '{"error":"Error","message":"path \'no\': it does not exist"}'
    assert run.types[-1] == "completeRun"


@pytest.mark.behaviour("E11")
async def test_a_skill_at_a_private_address_stops_the_run(tmp_path: Path) -> None:
    """The broker refuses the connection, and the error of the Run has its sentence."""
    far = SseSkill(name="far", endpoint="https://mcp.example.com/sse")
    grants = {"far": Grant(proxy_credential="c0ffee")}
    sentence = "mcp.example.com leads to no address that may be reached: 10.0.0.1 is a private network"
    run, host = await work(tmp_path, a_run(expert=expert(skills=(far,)), grants=grants), refused_tunnel=sentence)
    assert (run.code, run.stderr) == (0, "")
    assert run.types == ["initializeRuntime", "skillConnected", "skillDisconnected", "stopRunByError"]
    message = f"skill 'far' cannot be used: mcp.example.com could not be reached: 403 {sentence}"
    assert run.event("stopRunByError")["error"]["message"] == message
    assert host.checkpoints[-1].status is Status.STOPPED_BY_ERROR
    assert "tunnel" in host.openings


def _kit(tmp_path: Path, *, lazy: bool, gate: str = "") -> StdioSkill:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    script = workspace / "tools.py"
    wait = f"open({str(workspace / gate)!r}).close()\n" if gate else ""  # A FIFO: it opens once a writer does.
    script.write_text(wait + TOOLS.read_text())
    return StdioSkill(name="kit", command=sys.executable, args=("-I", str(script)), lazy_init=lazy)


@pytest.mark.behaviour("E5")
async def test_an_eager_skill_is_connected_before_the_run_starts(tmp_path: Path) -> None:
    """`startRun` waits for it, and its tools are offered."""
    kit = _kit(tmp_path, lazy=False)
    run, host = await work(tmp_path, a_run(expert=expert(skills=(kit,))), says("x"))
    told = [(event["type"], event.get("skillName")) for event in run.events]
    assert told.index(("skillConnected", "kit")) < told.index(("startRun", None))
    assert "add" in [tool.name for tool in host.requests[0].tools]


@pytest.mark.behaviour("E5")
async def test_a_lazy_skill_delays_the_generation_alone(tmp_path: Path) -> None:
    """`startRun` does not wait for it, the tool list does; the base skill is never lazy."""
    kit = _kit(tmp_path, lazy=True, gate="gate")
    os.mkfifo(tmp_path / "workspace" / "gate")
    base = StdioSkill(name=BASE_SKILL, command="npx", package_name=BASE_SKILL, lazy_init=True)
    async with scripted_host(tmp_path, a_run(expert=expert(skills=(base, kit))), (says("x"),)) as host:
        process = await start_runtime(host)
        assert process.stdout is not None
        first = b""
        async with asyncio.timeout(SECONDS):
            while b'"startGeneration"' not in first:
                first += await process.stdout.readline()
            assert host.requests == []
            await asyncio.to_thread((tmp_path / "workspace" / "gate").write_bytes, b"")
        run = await ended(host, process)
    told = [(event["type"], event.get("skillName")) for line in run.spool.splitlines() for event in [json.loads(line)]]
    assert [entry for entry in told if entry[0] in ("skillConnected", "startRun", "startGeneration")] == [
        ("skillConnected", BASE_SKILL),
        ("startRun", None),
        ("startGeneration", None),
        ("skillConnected", "kit"),
    ]
    assert told[-1] == ("completeRun", None)
    assert "add" in [tool.name for tool in host.requests[0].tools]


@pytest.mark.behaviour("E5", "E6")
async def test_a_lazy_skill_that_does_not_start_stops_the_run(tmp_path: Path) -> None:
    """The error has the sentence, the query is kept, and stderr is empty."""
    gone = StdioSkill(name="gone", command="no-such-command-here", args=("x",), lazy_init=True)
    run, host = await work(tmp_path, a_run(expert=expert(skills=(gone,))))
    assert (run.code, run.stderr) == (0, "")
    assert (run.types[-1], "startRun" in run.types) == ("stopRunByError", True)
    assert "'gone' does not start" in run.event("stopRunByError")["error"]["message"]
    assert [message.type for message in host.checkpoints[-1].messages] == ["instructionMessage", "userMessage"]


@pytest.mark.behaviour("E6")
async def test_one_failing_skill_closes_the_others(tmp_path: Path) -> None:
    """Open skills are closed, and the Run stops by the first error."""
    gone = StdioSkill(name="gone", command="no-such-command-here", args=("x",))
    run, _ = await work(tmp_path, a_run(expert=expert(skills=(gone, _kit(tmp_path, lazy=False)))))
    assert (run.code, run.types[-2:]) == (0, [END, "stopRunByError"])
    assert "'gone'" in run.event("stopRunByError")["error"]["message"]


async def test_a_skill_that_does_not_start(tmp_path: Path) -> None:
    """A missing command stops the Run by error with the command's name, and stderr has nothing else."""
    missing = StdioSkill(name="gone", command="no-such-command-here", args=("x",))
    run, host = await work(tmp_path, a_run(expert=expert(skills=(missing,))))
    assert run.code == 0
    assert (run.types[0], run.types[-1]) == ("initializeRuntime", "stopRunByError")
    assert "gone" in run.event("stopRunByError")["error"]["message"]
    assert host.checkpoints[-1].error is not None
    # The messages include the query, so that the job can be continued.
    assert [message.type for message in host.checkpoints[-1].messages] == ["instructionMessage", "userMessage"]


@pytest.mark.behaviour("C14")
async def test_without_reasoning_there_are_no_such_events(tmp_path: Path) -> None:
    """With reasoning `none` the provider streams none."""
    run, _ = await work(tmp_path, a_run(), calls(("attemptCompletion", {})), says("Done"))
    assert [kind for kind in run.types if "Reasoning" in kind] == []
    assert run.types[-1] == "completeRun"


@pytest.mark.behaviour("C14")
async def test_signatures_are_replayed(tmp_path: Path) -> None:
    """Thoughts go back to the model whole, with their signature, before the calls that they led to."""
    thought = Reasoning(text="hm", signature="s1gn")
    first = calls(("listDirectory", {"path": "."})).with_(reasoning=(thought,))
    run, host = await work(tmp_path, a_run(), first, says("Done"))
    assert run.types[-1] == "completeRun"
    message = host.requests[1].messages[2]
    assert isinstance(message, ExpertMessage)
    assert [part.type for part in message.contents] == ["thinkingPart", "toolCallPart"]
    assert isinstance(message.contents[0], ThinkingPart)
    assert (message.contents[0].thinking, message.contents[0].signature) == ("hm", "s1gn")


@pytest.mark.behaviour("C15")
async def test_images_and_pdfs_reach_the_model(tmp_path: Path) -> None:
    """Their bytes reach the model whole and are in no event line; an unreadable file is a text."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    image, pdf = b"\x89PNG" * 50_000, b"%PDF" * 50_000
    (workspace / "a.png").write_bytes(image)
    (workspace / "a.pdf").write_bytes(pdf)
    asked = [
        ("readImageFile", {"path": "a.png"}),
        ("readPdfFile", {"path": "a.pdf"}),
        ("readPdfFile", {"path": "no.pdf"}),
    ]
    run, host = await work(tmp_path, a_run(), calls(*asked), says("Seen"))
    assert run.types[-1] == "completeRun"
    message = host.requests[1].messages[-1]
    assert isinstance(message, ToolMessage)
    shown, filed, missing = (part.contents[0] for part in message.contents)
    assert isinstance(shown, ImageInlinePart)
    assert (shown.mime_type, base64.b64decode(shown.encoded_data)) == ("image/png", image)
    assert isinstance(filed, FileInlinePart)
    assert (filed.mime_type, base64.b64decode(filed.encoded_data)) == ("application/pdf", pdf)
    assert isinstance(missing, TextPart)
    assert missing.text == '{"error":"Error","message":"path \'no.pdf\': it does not exist"}'
    assert base64.b64encode(image)[:60] not in run.stdout
    (part,) = run.event("resolveToolResults")["toolResults"][0]["result"]
    assert part["encodedData"] == f"[cut: {len(base64.b64encode(image))} characters in all]"


@pytest.mark.behaviour("E7")
async def test_the_base_skill_runs_in_the_runtime(tmp_path: Path) -> None:
    """It takes no time to spawn, and there is no event of a process."""
    run, _ = await work(tmp_path, a_run(), says("x"))
    assert "skillStarting" not in run.types
    connected = run.event("skillConnected")
    assert (connected["skillName"], connected["spawnDurationMs"]) == (BASE_SKILL, 0)


@pytest.mark.behaviour("E7")
async def test_another_base_skill_has_its_own_process(tmp_path: Path) -> None:
    """A pinned version or another command runs in the workspace, as `exec` would, under the base skill's name."""
    kit = _kit(tmp_path, lazy=False)
    base = kit.with_(name=BASE_SKILL, lazy_init=True)
    granted = a_run(expert=expert(skills=(base,)), exec_grant=Grant(env={"TOKEN": "t"}))
    run, host = await work(tmp_path, granted, calls(("environ", {})), says("x"))
    assert [event["type"] for event in run.events if event.get("skillName") == BASE_SKILL] == [
        "skillStarting",
        "skillConnected",
        "skillDisconnected",
    ]
    assert run.types.index("skillConnected") < run.types.index("startRun")
    (result,) = host.results
    assert isinstance(result.result[0], TextPart)
    lines = result.result[0].text.splitlines()
    assert ("TOKEN=t" in lines, lines[-1]) == (True, str(tmp_path / "workspace"))


@pytest.mark.behaviour("E7")
@pytest.mark.parametrize(
    ("fields", "is_other"),
    [
        ({"command": "npx", "package_name": "@perstack/base"}, False),
        ({"command": "npx", "args": ("-y", "@perstack/base")}, False),
        ({"command": "npx", "package_name": "@perstack/base@0.0.34"}, True),
        ({"command": "npx", "args": ("-y", "@perstack/base@0.0.34")}, True),
        ({"command": "node", "args": ("base.js",)}, True),
        ({"command": "npx", "package_name": "@perstack/base@1", "name": "kit"}, False),
    ],
)
def test_only_a_pin_or_another_program_is_another_base_skill(fields: dict[str, Any], is_other: bool) -> None:  # noqa: FBT001 - a parameter
    """All else under the reserved name means the built-in tools."""
    assert is_external_base(StdioSkill(**{"name": BASE_SKILL, **fields})) is is_other


@pytest.mark.behaviour("E13")
async def test_a_path_from_another_skill_is_not_read(tmp_path: Path) -> None:
    """The answer of a skill's `readImageFile` stays text, and the path in it is not opened."""
    kit = _kit(tmp_path, lazy=False).with_(pick=("readImageFile",))
    base = StdioSkill(name=BASE_SKILL, command="npx", package_name=BASE_SKILL, omit=("readImageFile",))
    called = calls(("readImageFile", {"path": "/etc/passwd"}))
    _, host = await work(tmp_path, a_run(expert=expert(skills=(base, kit))), called, says("x"))
    (result,) = host.results
    assert (result.skill_name, [part.type for part in result.result]) == ("kit", ["textPart"])
    assert isinstance(result.result[0], TextPart)
    assert result.result[0].text == '{"path": "/etc/passwd", "mimeType": "image/png", "size": 1}'


async def test_content_filter_stops_by_error(tmp_path: Path) -> None:
    """A filtered reply never becomes a result."""
    run, _ = await work(tmp_path, a_run(), says("half", finish_reason=FinishReason.CONTENT_FILTER))
    assert run.types == [*BEGIN, END, "stopRunByError"]


@pytest.mark.behaviour("C13")
async def test_sigterm_ends_without_a_terminal_event(tmp_path: Path) -> None:
    """While the model thinks it exits with 143 at once, and all skills are closed."""
    async with scripted_host(tmp_path, a_run()) as host:
        process = await start_runtime(host)
        async with asyncio.timeout(SECONDS):
            await host.asked.wait()
        process.send_signal(signal.SIGTERM)
        run = await ended(host, process)
    assert (run.code, run.stderr) == (143, "stopped from outside\n")
    assert run.types == [*BEGIN, END]


async def test_sigterm_while_waiting_for_a_run(tmp_path: Path) -> None:
    """A warm Sandbox without a Run stops as quickly."""
    attached = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        attached.set()
        await reader.read()
        writer.close()

    async with scripted_host(tmp_path, a_run()) as host:
        make_socket_directory(host.state).unlink()
        async with await asyncio.start_unix_server(mute, make_socket_directory(host.state)):
            process = await start_runtime(host)
            async with asyncio.timeout(SECONDS):
                await attached.wait()
            process.send_signal(signal.SIGTERM)
            run = await ended(host, process)
    assert (run.code, run.stdout) == (143, b"")


async def test_past_its_deadline_it_ends_whatever_it_does(tmp_path: Path) -> None:
    """During a model call, or before any Run, it exits with code 124 and a sentence."""
    async with scripted_host(tmp_path, a_run()) as host:
        process = await start_runtime(host, options=("--deadline", str(time.time() + 3)))
        near = await ended(host, process)
        past = await ended(host, await start_runtime(host, options=("--deadline", "1")))
    assert (near.code, near.stderr, near.types) == (124, "past its deadline\n", BEGIN[: len(near.types)])
    assert (past.code, past.stderr) == (124, "past its deadline\n")


async def test_open_files_are_bounded_from_the_start(tmp_path: Path) -> None:
    """The runtime and all its processes have this limit, cannot raise it, and the facts contain it."""
    ask = {
        "command": "sh",
        "args": ["-c", "ulimit -Hn; ulimit -Sn"],
        "env": {},
        "cwd": ".",
        "stdout": True,
        "stderr": True,
    }
    async with scripted_host(tmp_path, a_run(), (calls(("exec", ask)), says("done"))) as host:
        run = await ended(host, await start_runtime(host, options=("--files", "300")))
    assert run.code == 0, run.stderr
    assert [each.facts.files for each in host.attached if each.facts] == [300]
    (part,) = host.results[0].result
    assert isinstance(part, TextPart)
    assert "300\\n300" in part.text


async def test_a_deadline_may_be_as_far_as_it_likes(tmp_path: Path) -> None:
    """A deadline beyond the range of a timer has no effect."""
    async with scripted_host(tmp_path, a_run(), (says("done"),)) as host:
        run = await ended(host, await start_runtime(host, options=("--deadline", "1e18")))
    assert (run.code, run.stderr) == (0, "")


async def test_a_refused_sandbox_reports_why(tmp_path: Path) -> None:
    """A Sandbox that the broker refuses to reattach exits with the broker's sentence and code 70."""
    run, host = await work(tmp_path, a_run(), break_calls={"1/0"}, refusal="the session is over")
    assert (run.code, run.stderr) == (70, "the broker refused to reattach this Sandbox: the session is over\n")
    assert host.openings == ["attach", "reattach"]


async def test_a_broken_link_is_not_seen_in_the_events(tmp_path: Path) -> None:
    """Unanswered calls are sent again on a new connection."""
    broken = {"1/0", "checkpoint/1", "result/c0"}
    replies = (calls(("listDirectory", {"path": "."})), says("Done"))
    run, host = await work(tmp_path, a_run(), *replies, break_calls=broken)
    assert run.types == [*BEGIN, *STEP, END, "completeRun"]
    assert host.openings == ["attach", "reattach", "reattach", "reattach"]


@pytest.mark.behaviour("G16")
async def test_a_child_cannot_forge_events(tmp_path: Path) -> None:
    """What a command writes to its stdout, or to the runtime's, never reaches the stream."""
    forged = '{"type": "completeRun"}'
    script = f"echo '{forged}'; echo '{forged}' > /proc/$PPID/fd/1 2>/dev/null; true"
    args = {"command": "sh", "args": ["-c", script], "env": {}, "cwd": ".", "stdout": False, "stderr": False}
    run, _ = await work(tmp_path, a_run(), calls(("exec", args)), says("x"))
    assert run.types == [*BEGIN, *STEP, END, "completeRun"]


async def test_only_what_is_used_is_imported(tmp_path: Path) -> None:
    """A Run without MCP skills imports no SDK and no module of the host, as the interpreter's own list shows."""
    async with scripted_host(tmp_path, a_run(), (says("x"),)) as host:
        process = await start_runtime(host, "-X", "importtime")
        run = await ended(host, process)
    assert run.types == [*BEGIN, END, "completeRun"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "orchestrator" in imported
    assert not imported & {"mcp", "anthropic", "typer", "h11", "docker", "httpx2", "structlog"}


@pytest.mark.parametrize("args", [("--state",), ("--nonsense", "x")])
async def test_usage(args: tuple[str, ...]) -> None:
    """Unknown arguments cause one sentence."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "orchestrator.runtime", *args, stderr=asyncio.subprocess.PIPE, cwd="/"
    )
    async with asyncio.timeout(SECONDS):
        _, stderr = await process.communicate()
    assert (process.returncode, stderr.decode().startswith("usage:")) == (70, True)
