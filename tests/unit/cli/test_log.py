"""`log` and `record` over records on disk."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import main
from orchestrator.store import Store
from orchestrator.wire.checkpoint import RunError
from orchestrator.wire.generation import Reply
from orchestrator.wire.job_record import JobRecord, JobStatus
from orchestrator.wire.usage import Usage
from tests.support.event_history import JOB, Chronicle

Log = Callable[..., tuple[int, str, str]]

HOSTILE = "done\x1b]0;owned\x07\u202egnp.exe\nsecond"


def _boss() -> Chronicle:
    return Chronicle("r", query="go").start().ask().tools("exec", "left").delegate()


def _left() -> Chronicle:
    left = Chronicle("x", "left", "r", "2-left", "half").start().ask().tools("exec").ask()
    return left.fail(RunError(name="Overloaded", message="later")).complete(HOSTILE)


async def _keep(root: Path) -> None:
    store = Store(root)
    async with store.create(JobRecord(id="older", coordinator_expert_key="boss", started_at=1)):
        pass
    usage = Usage(total_tokens=8, input_tokens=5, output_tokens=3)
    record = JobRecord(
        id=JOB, status=JobStatus.COMPLETED, coordinator_expert_key="boss", total_steps=3, usage=usage,
        started_at=2_000, finished_at=4_500,
    )  # fmt: skip
    async with store.create(record) as records:
        for run in (_boss(), _left()):
            await records.keep_setting(run.setting)
            await records.keep_checkpoint(run.checkpoint("end"))
            for event in run.events:
                await records.append(event)
            await records.keep_reply(run.run_id, "1/0", Reply(text=run.run_id, usage=usage))


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Log:
    """Run a command over a store with two jobs, the newer of two Runs and ten events."""
    asyncio.run(_keep(tmp_path / "perstack"))

    def called(*arguments: str, storage: str = "perstack") -> tuple[int, str, str]:
        code = main([*arguments, "--storage", str(tmp_path / storage)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def _object(log: Log, *arguments: str) -> dict[str, Any]:
    code, out, _ = log("log", "--json", *arguments)
    assert code == 0
    value: dict[str, Any] = json.loads(out)
    return value


@pytest.mark.behaviour("B7")
@pytest.mark.parametrize(
    "options",
    [
        (), ("--step", "5"), ("--type", "callTools"), ("--errors",), ("--tools",), ("--delegations",),
        ("--filter", ".a == 1"), ("--take", "0"), ("--offset", "1"), ("--context", "1"), ("--messages",),
        ("--summary",), ("--verbose",), ("--json",), ("--pretty",), ("--run", "r"), ("--checkpoint", "c"), ("--runs",),
    ],
)  # fmt: skip
def test_an_unknown_job_has_no_data(log: Log, options: tuple[str, ...]) -> None:
    """The output is one sentence and the exit code 0, whatever the filters; also for a store without jobs."""
    assert log("log", "--job", "unknown", *options) == (0, "No data found\n", "")
    assert log("log", "--job", "../unknown", *options) == (0, "No data found\n", "")
    assert log("log", *options, storage="empty") == (0, "No data found\n", "")


@pytest.mark.behaviour("B8", "B9")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--take", "-1"), "--take"), (("--take", "x"), "--take"), (("--take", "1.5"), "--take"),
        (("--offset", "-1"), "--offset"), (("--offset", "12x"), "--offset"), (("--context", "-2"), "--context"),
        (("--step", "9-1"), "inverted"), (("--step", "junk"), "invalid step filter"),
        (("--filter", "junk"), "invalid filter"), (("--type", "junk"), "is not an event type"),
        (("--jobs", "--runs"), "exclude each other"), (("--checkpoint", "nowhere"), "checkpoint not found"),
    ],
)  # fmt: skip
def test_bad_filters_and_numbers_are_refused(log: Log, options: tuple[str, ...], sentence: str) -> None:
    """One sentence is on stderr, and the exit code is 2."""
    code, out, err = log("log", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


@pytest.mark.behaviour("B9")
def test_filters_page_and_context_work_together(log: Log) -> None:
    """The object has the events shown, how many matched, and how many are on the page."""
    found = _object(log, "--tools", "--take", "1", "--offset", "1", "--context", "1")
    assert [(event["runId"], event["type"]) for event in found["events"]] == [
        ("x", "startGeneration"),
        ("x", "callTools"),
        ("x", "startGeneration"),
    ]
    assert (found["totalEventsBeforeLimit"], found["matchedAfterPagination"]) == (2, 1)
    assert found["summary"] == {
        "totalEvents": 3, "errorCount": 0, "toolCallCount": 1, "delegationCount": 0, "stepRange": {"min": 1, "max": 2},
    }  # fmt: skip


def test_the_newest_job_is_shown_as_one_object(log: Log) -> None:
    """Without options, the object has the newest job, its checkpoints without conversation, and the store's path."""
    found = _object(log)
    assert (found["job"]["id"], found["isLatestJob"], len(found["events"])) == (JOB, True, 10)
    assert [event["position"] for event in found["events"]] == list(range(1, 11))
    assert ["messages" in each for each in found["checkpoints"]] == [False, False]
    assert ["messages" in each for each in _object(log, "--messages")["checkpoints"]] == [True, True]
    assert "events" not in _object(log, "--summary")
    assert _object(log, "--job", JOB)["isLatestJob"] is False


def test_a_checkpoint_or_a_run_chooses_the_events(log: Log) -> None:
    """A checkpoint selects the events of its Run; with --run both must match."""
    found = _object(log, "--checkpoint", "x-end")
    assert (found["checkpoint"]["id"], {event["runId"] for event in found["events"]}) == ("x-end", {"x"})
    assert {event["runId"] for event in _object(log, "--run", "r")["events"]} == {"r"}
    assert _object(log, "--run", "r", "--checkpoint", "x-end")["events"] == []


@pytest.mark.behaviour("H1")
def test_listings_skip_damaged_records(log: Log, tmp_path: Path) -> None:
    """A damaged line, checkpoint, setting or job is skipped, and all others are listed."""
    job = tmp_path / "perstack" / "jobs" / JOB
    lines = job / "runs" / "r" / "attempt-1" / "events.jsonl"
    lines.write_bytes(b"junk\n" + lines.read_bytes().split(b"\n", 1)[1] + b'{"torn')
    (job / "checkpoints" / "r-end.json").write_text("{}")
    (job / "runs" / "r" / "run-setting.json").write_text("[")
    (tmp_path / "perstack" / "jobs" / "older" / "job.json").write_text("junk")
    found = _object(log)
    assert [event["position"] for event in found["events"]] == list(range(2, 11))
    assert [each["id"] for each in found["checkpoints"]] == ["x-end"]
    assert [run["runId"] for run in _object(log, "--runs")["runs"]] == ["x"]
    assert [each["id"] for each in _object(log, "--jobs")["jobs"]] == [JOB]


@pytest.mark.behaviour("H1")
def test_jobs_are_listed_newest_first(log: Log) -> None:
    """Each job is a line, and there are pages as for events."""
    code, out, _ = log("log", "--jobs")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["JOB", JOB, "older"])
    assert f"{JOB}  completed  boss    3      8       1970-01-01 00:00:02Z  2.5 s" in out
    assert [each["id"] for each in _object(log, "--jobs", "--offset", "1")["jobs"]] == ["older"]


def test_the_tree_of_runs_adds_up(log: Log) -> None:
    """Usage is shown per Run, per subtree and for the job."""
    found = _object(log, "--runs")
    (boss,) = found["runs"]
    assert (boss["usage"]["totalTokens"], boss["subtreeUsage"]["totalTokens"]) == (8, 16)
    assert [(run["expertKey"], run["steps"]) for run in boss["runs"]] == [("left", 2)]
    assert found["usage"]["totalTokens"] == 16


@pytest.mark.parametrize("options", [(), ("--verbose",), ("--messages",), ("--json",), ("--pretty",), ("--runs",)])
def test_text_of_an_expert_cannot_control_the_terminal(log: Log, options: tuple[str, ...]) -> None:
    """The output has no escape, no direction override and no line that the Expert forged."""
    code, out, _ = log("log", *options)
    assert code == 0
    assert not set(out) & {"\x1b", "\x07", "\u202e", "\r"}
    assert not any(line.startswith("second") for line in out.splitlines())


def test_a_job_is_recorded_to_a_file_or_stdout(log: Log, tmp_path: Path) -> None:
    """The script covers all Experts; an unknown job or an unwritable file is one sentence."""
    file = tmp_path / "replies.json"
    code, out, err = log("record", JOB)
    assert (code, err) == (0, "")
    assert json.loads(out)["boss"] == [{"text": "r", "usage": {"inputTokens": 5, "outputTokens": 3}}]
    assert log("record", JOB, "--output", str(file)) == (0, "", "")
    assert file.read_text() == out
    assert log("record", "unknown")[0] == 2
    code, out, err = log("record", JOB, "--output", str(tmp_path / "nowhere" / "file"))
    assert (code, out, err.count("\n")) == (2, "", 1)
