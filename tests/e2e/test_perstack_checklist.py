"""What Perstack's checklist promises of whole jobs, where no other file tests it."""

import asyncio
import json

import pytest

from orchestrator.wire.event import CompleteRun
from tests.support.project import ONE, Make, ask, ended, say, use

TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["left", "right"]
[experts.left]
instruction = "Left."
delegates = ["deep"]
[experts.right]
instruction = "Right."
[experts.deep]
instruction = "Dig."
"""


@pytest.mark.behaviour("B2")
async def test_a_checkpoint_needs_its_job(project: Make) -> None:
    """`--resume-from` without `--continue-job` is a usage error with that sentence."""
    result = await project(ONE, {"one": [say("done")]}).run("one", "go", "--resume-from", "cp")
    assert result.code == 2
    assert "--continue-job" in result.stderr


@pytest.mark.behaviour("B4")
@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_runtime_in_the_toml_never_lowers_isolation(project: Make) -> None:
    """`runtime = "local"` gets a note, and the Expert runs in a container all the same."""
    made = project(ONE, {"one": [use(("healthCheck", {})), say("done")]})
    toml = made.directory / "perstack.toml"
    toml.write_text('runtime = "local"\n' + toml.read_text())
    result = await made.command("run", "one", "go")
    assert result.code == 0, result.stderr
    assert "local" in result.stderr
    assert "/workspace" in result.stdout.decode()
    assert '\\"pid\\":1' in result.stdout.decode().replace(" ", "")


@pytest.mark.behaviour("B6")
async def test_a_job_id_names_the_job_everywhere(project: Make) -> None:
    """Events carry it, and the records are below it."""
    made = project(ONE, {"one": [say("done")]})
    result = await made.run("one", "go", "--job-id", "my-job")
    assert {event.job_id for event in result.events} == {"my-job"}
    assert (made.store / "jobs" / "my-job").is_dir()


@pytest.mark.behaviour("D12")
async def test_the_record_has_running_and_then_the_end(project: Make) -> None:
    """While the job runs, or continues, it has `running` and no finish; then `completed` and the time."""
    slow = say("done") | {"delayMs": 1_500}
    made = project(ONE, {"one": [slow, slow]})
    record = made.store / "jobs" / "j" / "job.json"
    for more in (("--job-id", "j"), ("--continue-job", "j")):
        process = await made.start("run", "--backend", made.backend, *more, "one", "go")
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 60)
        during = json.loads(record.read_text())
        assert (during["status"], during.get("finishedAt")) == ("running", None)
        assert (await ended(process)).code == 0
        after = json.loads(record.read_text())
        assert after["status"] == "completed"
        assert after["finishedAt"] > after["startedAt"]


@pytest.mark.behaviour("D14")
async def test_a_parallel_child_that_delegates_resumes_before_it_returns(project: Make) -> None:
    """The coordinator gets the child's own words, not its grandchild's."""
    result = await project(
        TEAM,
        {
            "boss": [use(ask("left", "l"), ask("right", "r")), say("both")],
            "left": [use(ask("deep", "d")), say("left, with help")],
            "right": [say("right")],
            "deep": [say("gold")],
        },
    ).run("boss", "go")
    assert result.code == 0, result.stderr
    done: list[CompleteRun] = result.of(CompleteRun)
    texts = [event.text for event in done]
    assert texts.index("gold") < texts.index("left, with help") < texts.index("both")
    resumed = [line for line in result.stdout.splitlines() if b'"type":"finishAllToolCalls"' in line][-1]
    assert b"left, with help" in resumed
    assert b"gold" not in resumed


async def test_output_grows_linearly_with_steps(project: Make) -> None:
    """Twice the steps make twice the output, not four times: no event repeats the conversation."""
    sizes: dict[int, int] = {}
    write = use(("writeTextFile", {"path": "log", "text": "x" * 500}))
    for steps in (10, 20, 40):
        made = project(ONE, {"one": [*[write] * (steps - 1), say("done")]})
        result = await made.run("one", "go")
        assert result.code == 0, result.stderr
        sizes[steps] = len(result.stdout)
    assert sizes[40] - sizes[20] < 2.2 * (sizes[20] - sizes[10])
