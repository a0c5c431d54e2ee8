"""The replay of a job that is not being worked on."""

from pathlib import Path

from orchestrator.cluster import journal
from orchestrator.cluster.journal import JournalEntry
from orchestrator.cluster.protocol import JobEnded, JobStarted, Message, Subscribe, read_message
from orchestrator.cluster.records_server import command_output, replay
from orchestrator.store import Store
from orchestrator.wire.event import ProxyAccess
from orchestrator.wire.job_record import JobRecord, JobStatus

RECORD = JobRecord(id="j", coordinator_expert_key="one", max_steps=7, started_at=1)
BEGAN = JobStarted(after=0, expert_key="one", max_steps=7)
DONE = JobEnded(code=0)


def access(number: int) -> ProxyAccess:
    """Return an event."""
    return ProxyAccess(
        id=f"e{number}",
        timestamp=number,
        job_id="j",
        run_id="r",
        action="allowed",
        skill_name="s",
        domain="d",
        port=1,
    )


async def told(store: Store, follow: Subscribe) -> list[Message | bytes]:
    """Return all messages that a watcher receives."""
    return [read_message(line.removesuffix(b"\n")) async for line in replay(store, follow)]


async def made(tmp_path: Path, events: int) -> tuple[Store, list[bytes]]:
    """Return a store with a job of some events."""
    store = Store(tmp_path)
    async with store.create(RECORD) as records:
        return store, [(await records.append(access(number))).line for number in range(events)]


async def test_what_a_coordinator_added_and_how_it_ended(tmp_path: Path) -> None:
    """The replay begins at the coordinator's noted position, or at the requested one."""
    store, lines = await made(tmp_path, 3)
    journal.write(store, "j", "uid", JournalEntry(starts=1, after=1, ended=DONE))
    began = BEGAN.with_(after=1)
    assert await told(store, Subscribe(job_id="j", uid="uid")) == [began, *lines[1:], DONE]
    assert await told(store, Subscribe(job_id="j", uid="uid", after=0)) == [began, *lines, DONE]
    assert await told(store, Subscribe(job_id="j", after=2)) == [began, *lines[2:], DONE]
    stopped = JobEnded(code=4, error="cancelled")
    journal.write(store, "j", "later", JournalEntry(starts=1, after=2, ended=stopped))
    assert await told(store, Subscribe(job_id="j", uid="uid")) == [began, *lines[1:], DONE]
    assert await told(store, Subscribe(job_id="j")) == [BEGAN.with_(after=2), *lines[2:], stopped]


async def test_the_error_of_a_job_that_was_cut_off_has_the_command_to_resume(tmp_path: Path) -> None:
    """Without a noted end, the error names the command that resumes the job."""
    store, lines = await made(tmp_path, 1)
    *rest, ended = await told(store, Subscribe(job_id="j", where=("--user", "u 1"), after=0))
    assert rest == [BEGAN, *lines]
    assert isinstance(ended, JobEnded)
    assert (ended.code, ended.outcome) == (3, None)
    assert (ended.error or "").endswith("resume it with perstack-orch resume --backend kubernetes --user 'u 1' j")


async def test_a_job_that_was_cancelled_before_its_coordinator_noted_its_end(tmp_path: Path) -> None:
    """It ends as its coordinator would report it: stopped and resumable, not as a failure of the platform."""
    store = Store(tmp_path)
    async with store.create(RECORD.with_(status=JobStatus.CANCELLED)):
        pass
    *_, ended = await told(store, Subscribe(job_id="j", where=("--user", "u1"), after=0))
    resume = "perstack-orch resume --backend kubernetes --user u1 j"
    assert ended == JobEnded(code=4, error=f"job 'j' was cancelled; resume it with {resume}")


async def test_a_job_that_is_not_there(tmp_path: Path) -> None:
    """An unknown job is one sentence and exit code 2."""
    store, _ = await made(tmp_path, 0)
    *_, ended = await told(store, Subscribe(job_id="other", after=0))
    assert ended == JobEnded(code=2, error="job 'other' is not in the user's records; check the id, and --user")


async def test_where_a_coordinator_begins_is_noted_once(tmp_path: Path) -> None:
    """A replacement Pod reads what the first one noted."""
    store, _ = await made(tmp_path, 2)
    first, again = journal.begin(store, "j", "uid")
    assert (first, again) == (JournalEntry(starts=0, after=2), False)
    async with store.open("j") as records:
        await records.append(access(9))
    assert journal.begin(store, "j", "uid") == (first, True)
    assert journal.begin(store, "j", "next")[0] == JournalEntry(starts=0, after=3)


async def test_only_commands_about_records_are_run(tmp_path: Path) -> None:
    """Users who may forward a port still cannot run other commands."""
    lines = [read_message(line) async for line in command_output(("run", "x"), tmp_path)]
    assert lines == [JobEnded(code=2, error="'run' is no command about records")]
    log = [read_message(line.rstrip(b"\n")) async for line in command_output(("log", "--jobs"), tmp_path)]
    assert log == [b"No data found", JobEnded(code=0)]
