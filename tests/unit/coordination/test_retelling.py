"""What is told of a job that nobody works on."""

from pathlib import Path

from orchestrator.coordination import notebook
from orchestrator.coordination.messages import Began, Ended, Follow, Message, read_message
from orchestrator.coordination.notebook import Coordination
from orchestrator.coordination.retelling import retold, written
from orchestrator.store import Store
from orchestrator.wire.job import JobRecord
from orchestrator.wire.platform_event import ProxyAccess

RECORD = JobRecord(id="j", coordinator_expert_key="one", max_steps=7, started_at=1)
BEGAN = Began(after=0, expert_key="one", max_steps=7)
DONE = Ended(code=0)


def access(number: int) -> ProxyAccess:
    """Some event."""
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


async def told(store: Store, follow: Follow) -> list[Message | bytes]:
    """All that a watcher hears."""
    return [read_message(line.removesuffix(b"\n")) async for line in retold(store, follow)]


async def made(tmp_path: Path, events: int) -> tuple[Store, list[bytes]]:
    """A store with a job of some events."""
    store = Store(tmp_path)
    async with store.create(RECORD) as records:
        return store, [(await records.append(access(number))).line for number in range(events)]


async def test_what_a_coordinator_added_and_how_it_ended(tmp_path: Path) -> None:
    """By its own note of where it began; by position where one is named."""
    store, lines = await made(tmp_path, 3)
    notebook.write(store, "j", "uid", Coordination(starts=1, after=1, ended=DONE))
    began = BEGAN.with_(after=1)
    assert await told(store, Follow(job_id="j", uid="uid")) == [began, *lines[1:], DONE]
    assert await told(store, Follow(job_id="j", uid="uid", after=0)) == [began, *lines, DONE]
    assert await told(store, Follow(job_id="j", after=2)) == [began, *lines[2:], DONE]
    stopped = Ended(code=4, error="cancelled")
    notebook.write(store, "j", "later", Coordination(starts=1, after=2, ended=stopped))
    assert await told(store, Follow(job_id="j", uid="uid")) == [began, *lines[1:], DONE]
    assert await told(store, Follow(job_id="j")) == [BEGAN.with_(after=2), *lines[2:], stopped]


async def test_a_job_that_was_cut_off_says_how_to_go_on(tmp_path: Path) -> None:
    """No coordinator has noted an end."""
    store, lines = await made(tmp_path, 1)
    *rest, ended = await told(store, Follow(job_id="j", where=("--user", "u 1"), after=0))
    assert rest == [BEGAN, *lines]
    assert isinstance(ended, Ended)
    assert (ended.code, ended.outcome) == (3, None)
    assert (ended.error or "").endswith("go on with perstack-orch resume --backend kubernetes --user 'u 1' j")


async def test_a_job_that_is_not_there(tmp_path: Path) -> None:
    """One sentence and the exit code of one that cannot be used."""
    store, _ = await made(tmp_path, 0)
    *_, ended = await told(store, Follow(job_id="other", after=0))
    assert ended == Ended(code=2, error="job 'other' is not in the user's records; check the id, and --user")


async def test_where_a_coordinator_begins_is_noted_once(tmp_path: Path) -> None:
    """A Pod that replaces another reads what the first found."""
    store, _ = await made(tmp_path, 2)
    first, again = notebook.begin(store, "j", "uid")
    assert (first, again) == (Coordination(starts=0, after=2), False)
    async with store.open("j") as records:
        await records.append(access(9))
    assert notebook.begin(store, "j", "uid") == (first, True)
    assert notebook.begin(store, "j", "next")[0] == Coordination(starts=0, after=3)


async def test_only_commands_about_records_are_run(tmp_path: Path) -> None:
    """Whoever may forward a port may not run what they like."""
    lines = [read_message(line) async for line in written(("run", "x"), tmp_path)]
    assert lines == [Ended(code=2, error="'run' is no command about records")]
    log = [read_message(line.rstrip(b"\n")) async for line in written(("log", "--jobs"), tmp_path)]
    assert log == [b"No data found", Ended(code=0)]
