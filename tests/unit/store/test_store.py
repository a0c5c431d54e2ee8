"""Records on disk: stored values are read back once, by one orchestrator at a time."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store import Store
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.event import DockerContainerStatus, StreamRunResult
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.generation import Reply
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.job_record import JobRecord, JobStatus
from orchestrator.wire.line import decode, encode
from orchestrator.wire.masking import mask
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.run import RunSetting
from orchestrator.wire.usage import Usage

JOB = JobRecord(id="job-1", coordinator_expert_key="one", started_at=1)


def _event(seq: int, run_id: str = "run", attempt: int | None = 1, delta: str = "x") -> StreamRunResult:
    return StreamRunResult(
        id=f"e{seq}",
        timestamp=seq,
        job_id="job-1",
        run_id=run_id,
        attempt=attempt,
        seq=seq,
        expert_key="one",
        step_number=1,
        delta=delta,
    )


def _attempt(number: int) -> AttemptRef:
    return AttemptRef("job-1", "run", number)


def _line(seq: int, run_id: str = "run", delta: str = "x") -> bytes:
    return encode(_event(seq, run_id, delta=delta)).rstrip(b"\n")


def _status(message: str, attempt: int = 1) -> DockerContainerStatus:
    return DockerContainerStatus(
        id="s",
        timestamp=9,
        job_id="job-1",
        run_id="run",
        attempt=attempt,
        status="running",
        service="b",
        message=message,
    )


def _checkpoint(checkpoint_id: str, step: int) -> Checkpoint:
    return Checkpoint(
        id=checkpoint_id,
        job_id="job-1",
        run_id="run",
        status=Status.PROCEEDING,
        step_number=step,
        messages=(),
        expert=ExpertId(key="one", name="one", version="1.0.0"),
        usage=Usage(),
    )


def _setting(updated_at: int, model: str = "m") -> RunSetting:
    return RunSetting(
        job_id="job-1",
        run_id="run",
        expert_key="one",
        model=model,
        provider_name="scripted",
        reasoning_budget="low",
        max_steps=1,
        max_retries=0,
        timeout_ms=1,
        started_at=1,
        updated_at=updated_at,
    )


def _result(call_id: str, text: str) -> ToolResult:
    return ToolResult(id=call_id, skill_name="s", tool_name="t", result=(TextPart(id="p", text=text),))


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def _records(root: Path) -> set[str]:
    return {path.parent.name for path in root.rglob("*.json")}


async def test_everything_kept_is_read_again(tmp_path: Path) -> None:
    """Values that one orchestrator stores are read by the next as equal values."""
    async with Store(tmp_path).create(JOB) as records:
        await records.keep_checkpoint(_checkpoint("c2", 2))
        await records.keep_checkpoint(_checkpoint("c1", 1))
        await records.keep_result("run", _result("../../escape", "r"))
        await records.keep_reply("run", "3/0", Reply(text="hello"))
        await records.keep_setting(_setting(1))
        finished = JOB.with_(status=JobStatus.COMPLETED, finished_at=9)
        await records.keep_job(finished)
    async with Store(tmp_path).open("job-1") as records:
        assert records.checkpoints() == (_checkpoint("c1", 1), _checkpoint("c2", 2))
        assert records.checkpoint("c2") == _checkpoint("c2", 2)
        assert records.results("run") == (_result("../../escape", "r"),)
        assert await records.reply("run", "3/0") == Reply(text="hello")
        assert await records.reply("run", "3/1") is None
        assert records.setting("run") == _setting(1)
        assert records.job() == finished
    assert (tmp_path / "jobs/job-1/runs/run/replies/3-0.json").is_file()
    assert _records(tmp_path) == {"job-1", "checkpoints", "run", "replies", "results"}


async def test_calls_that_failed_count_too(tmp_path: Path) -> None:
    """The count includes failed calls before a reply and after it; invalid metadata counts as none."""
    async with Store(tmp_path).create(JOB) as records:
        await records.keep_setting(_setting(1).with_(generations=10))
        last = _checkpoint("c1", 1)
        assert records.generations(last) == 10
        await records.keep_reply("run", "1/0", Reply(text="a"))
        await records.keep_reply("run", "3/2", Reply(text="b"))
        await records.keep_reply("run", "not an id", Reply(text="c"))
        assert (records.calls_made("run"), records.generations(last)) == (3, 13)
        assert records.generations(last.with_generations(5)) == 15
        for nonsense in ({"run": -1}, {"run": "9"}, {"run": 10**30}, {"run": None}, {"other": 9}, [9], None):
            assert records.generations(last.with_(metadata={"generations": nonsense})) == 13


async def test_only_this_user_can_read_records(tmp_path: Path) -> None:
    """Directories have mode 0700 and files 0600, whatever the umask."""
    store = Store(tmp_path / "store")
    before = os.umask(0)
    try:
        async with store.create(JOB) as records:
            await records.append(_event(1), _line(1))
            await records.keep_checkpoint(_checkpoint("c1", 1))
    finally:
        os.umask(before)
    _assert_private(store.root)


def _assert_private(root: Path) -> None:
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}
    assert all(path.stat().st_mode & 0o077 == 0 for path in root.rglob("*"))


async def test_positions_count_over_attempts_runs_and_reopening(tmp_path: Path) -> None:
    """Every event has the next position, even after a restart that found a torn last line."""
    async with Store(tmp_path).create(JOB) as records:
        first = await records.append(_event(1), _line(1))
        assert first.line == _line(1)[:-1] + b',"position":1}'
        assert decode(first.line) == first.event == _event(1).with_(position=1)
        await records.append(_event(1, "other", None))
    torn = tmp_path / "jobs/job-1/runs/run/attempt-1/events.jsonl"
    with torn.open("ab") as file:
        file.write(b'{"id":"torn","ty')
    async with Store(tmp_path).open("job-1") as records:
        await records.append(_event(2), _line(2))
        assert [(item.event.run_id, item.event.seq, item.event.position) for item in records.events()] == [
            ("run", 1, 1),
            ("other", 1, 2),
            ("run", 2, 3),
        ]
    assert b"torn" not in torn.read_bytes()


async def test_a_sandbox_continues_after_its_own_last_event(tmp_path: Path) -> None:
    """Events of the host in an attempt have no `seq` and do not hide the Sandbox's last one."""
    async with Store(tmp_path).create(JOB) as records:
        for seq in (1, 2):
            await records.append(_event(seq), _line(seq, delta="x" * 100_000))
    for status in range(2):
        async with Store(tmp_path).open("job-1") as records:
            assert (records.last_seq(_attempt(1)), records.last_seq(_attempt(3))) == (2, 0)
            await records.append(_status(f"status {status}" * 10_000))
            await records.append(_status("", attempt=3))
            assert not records.has_terminal_event("run", 3)


async def test_a_position_from_a_container_is_not_believed(tmp_path: Path) -> None:
    """The store's own position replaces the one in the line."""
    forged = _event(1).with_(position=99)
    async with Store(tmp_path).create(JOB) as records:
        recorded = await records.append(forged, encode(forged).rstrip(b"\n"))
        assert recorded.line.count(b'"position"') == 1
        assert recorded.event.position == 1


async def test_more_runs_than_open_files(tmp_path: Path) -> None:
    """Hundreds of Runs append in turn with a limited number of descriptors."""
    before = len(_names(Path("/proc/self/fd")))
    async with Store(tmp_path).create(JOB) as records:
        for turn in (1, 2):
            for run in range(100):
                await records.append(_event(turn, f"run{run}"), _line(turn, f"run{run}"))
        assert len(_names(Path("/proc/self/fd"))) - before <= 64 + 2
        assert [item.event.position for item in records.events()] == list(range(1, 201))


async def test_more_runs_than_files_may_be_open(tmp_path: Path) -> None:
    """All events are read in order, of Runs in sequence and of Runs in parallel."""
    turns = [f"run{run}" for run in range(200)]
    turns += [turns[0], "late", turns[0], "late"]
    async with Store(tmp_path).create(JOB) as records:
        for turn, run in enumerate(turns, start=1):
            await records.append(_event(turn, run), _line(turn, run))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, _names(Path("/proc/self/fd")))) + 10, hard))
        try:
            read = [(item.event.position, item.event.run_id) for item in records.events()]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read == list(enumerate(turns, start=1))


async def test_a_second_orchestrator_is_refused(tmp_path: Path) -> None:
    """Another process that opens a job in use gets an error with job and holder, and succeeds once it is free."""
    script = (
        "import asyncio,sys\n"
        "from pathlib import Path\n"
        "from orchestrator.store import Store\n"
        "async def main():\n"
        "    async with Store(Path(sys.argv[1])).open('job-1'): pass\n"
        "asyncio.run(main())\n"
    )

    def second() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
        )

    async with Store(tmp_path).create(JOB):
        refused = await asyncio.to_thread(second)
    assert refused.returncode == 1
    assert f"job 'job-1' is in use by another orchestrator (process {os.getpid()})" in refused.stderr
    assert (await asyncio.to_thread(second)).returncode == 0


async def test_a_store_that_may_no_longer_write_writes_nothing(tmp_path: Path) -> None:
    """Each write checks the permit first; a refused write leaves nothing, and later events use the next position."""
    refusing = False

    def permit() -> None:
        if refusing:
            message = "another has it"
            raise StoreError(message)

    store = Store(tmp_path, permit=permit)
    async with store.create(JOB) as records:
        await records.append(_event(1), _line(1))
        before, refusing = _all_bytes(tmp_path), True
        for writing in (
            records.append(_event(2), _line(2)),
            records.keep_job(JOB.with_(status=JobStatus.COMPLETED)),
            records.keep_setting(_setting(1)),
            records.keep_result("run", _result("call", "text")),
            records.keep_checkpoint(_checkpoint("c", 1)),
        ):
            with pytest.raises(StoreError, match="another has it"):
                await writing
        assert _all_bytes(tmp_path) == before
        refusing = False
        assert (await records.append(_event(2), _line(2))).event.position == 2


async def test_a_key_that_is_given_is_not_kept(tmp_path: Path) -> None:
    """The records of a job with a given key contain nothing that opens a session."""
    key = b"k" * 32
    async with Store(tmp_path, key=key).create(JOB) as records:
        assert await records.key() == key
    assert key not in _all_bytes(tmp_path)


async def test_a_job_id_is_used_once(tmp_path: Path) -> None:
    """Creating an existing job fails with the job's id and the option."""
    async with Store(tmp_path).create(JOB):
        pass
    with pytest.raises(StoreError, match=r"job 'job-1' is already in the store .* --job-id"):
        async with Store(tmp_path).create(JOB):
            pass


@pytest.mark.behaviour("B14")
@pytest.mark.parametrize("job_id", ["../x", "", "A", "a/b", "-a", "a" * 64, "absent"])
async def test_harmful_ids_of_jobs_are_refused(tmp_path: Path, job_id: str) -> None:
    """Ids that are paths, and unknown ids, are refused without touching the disk."""
    with pytest.raises(StoreError, match="job"):
        async with Store(tmp_path).open(job_id):
            pass
    assert _names(tmp_path) == set()


async def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A link planted in the store is refused with its path, and its target is unchanged."""
    target = tmp_path / "target"
    target.mkdir()
    async with Store(tmp_path / "store").create(JOB) as records:
        (tmp_path / "store/jobs/job-1/checkpoints").symlink_to(target)
        with pytest.raises(StoreError, match="checkpoints must be a directory"):
            await records.keep_checkpoint(_checkpoint("c1", 1))
    assert _names(target) == set()


@pytest.mark.behaviour("H1")
async def test_damaged_records_are_skipped(tmp_path: Path) -> None:
    """Listings skip them; a request for one names the file."""
    store = Store(tmp_path)
    async with store.create(JOB) as records:
        await records.keep_checkpoint(_checkpoint("c1", 1))
        (tmp_path / "jobs/job-1/checkpoints/c2.json").write_text('{"id":"c2","jobI')
        assert records.checkpoints() == (_checkpoint("c1", 1),)
        with pytest.raises(StoreError, match=r"checkpoints/c2\.json is damaged"):
            records.checkpoint("c2")
        with pytest.raises(StoreError, match="checkpoint not found: 'c3'"):
            records.checkpoint("c3")
    async with store.create(JOB.with_(id="job-2", started_at=2)):
        pass
    async with store.create(JOB.with_(id="job-3", started_at=3)):
        pass
    (tmp_path / "jobs/job-3/job.json").write_text("{")
    assert [record.id for record in store.jobs()] == ["job-2", "job-1"]


async def test_the_job_used_last_is_the_one_whose_runs_were_updated_last(tmp_path: Path) -> None:
    """It is not the job started last; a job without a stored Run counts from its start."""
    store = Store(tmp_path)
    assert store.last_used() is None
    for started_at, updated_at in ((1, 30), (2, 20), (25, None)):
        job = JOB.with_(id=f"job-{started_at}", started_at=started_at)
        async with store.create(job) as records:
            if updated_at is not None:
                await records.keep_setting(_setting(updated_at))
    last = store.last_used()
    assert last is not None
    assert last.id == "job-1"


async def test_a_damaged_event_names_file_and_line(tmp_path: Path) -> None:
    """A line that is not an event is reported with its number."""
    async with Store(tmp_path).create(JOB) as records:
        await records.append(_event(1), _line(1))
        path = tmp_path / "jobs/job-1/runs/run/attempt-1/events.jsonl"
        path.write_bytes(path.read_bytes() + b"{}\n")
        with pytest.raises(StoreError, match=r"attempt-1/events\.jsonl is damaged in line 2"):
            list(records.events())
    with pytest.raises(StoreError, match=r"attempt-1/events\.jsonl is damaged at its end"):
        async with Store(tmp_path).open("job-1"):
            pass


@pytest.mark.behaviour("H1")
async def test_a_setting_that_is_stored_again_changes_its_time_only(tmp_path: Path) -> None:
    """A Run's stored setting is the one it started with."""
    async with Store(tmp_path).create(JOB) as records:
        await records.keep_setting(_setting(1))
        await records.keep_setting(_setting(2, model="other"))
        assert records.setting("run") == _setting(2)


async def test_settings_are_read_by_update_the_latest_first(tmp_path: Path) -> None:
    """If two were updated at the same time, the id decides, so that the order is always the same."""
    settings = [_setting(at).with_(run_id=run) for run, at in (("b", 2), ("d", 3), ("a", 1), ("c", 2))]
    async with Store(tmp_path).create(JOB) as records:
        for setting in settings:
            await records.keep_setting(setting)
        assert [setting.run_id for setting in records.settings()] == ["d", "b", "c", "a"]


async def test_no_attempt_has_the_number_of_one_whose_setting_the_machine_lost(tmp_path: Path) -> None:
    """The events of that attempt exist, so its number is not used again."""
    async with Store(tmp_path).create(JOB) as records:
        await records.keep_setting(_setting(1), sandbox=7)
        await records.append(_event(1, attempt=1), _line(1))
        await records.append(_event(1, attempt=2))
    async with Store(tmp_path).open(JOB.id) as records:
        assert records.sandboxes("run") == (7, 0)
        await records.keep_setting(_setting(2), sandbox=8)
        assert records.sandboxes("run") == (7, 0, 8)


async def test_a_write_that_fails_leaves_the_old_record(tmp_path: Path) -> None:
    """A disk error in the middle of a write costs neither the old record nor leaves a stray file."""
    async with Store(tmp_path).create(JOB) as records:
        await records.keep_checkpoint(_checkpoint("c1", 1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
        try:
            with pytest.raises(StoreError, match=r"c1\.\w*.* cannot be used|c1\.json cannot be used"):
                await records.keep_checkpoint(_checkpoint("c1", 5))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert records.checkpoint("c1") == _checkpoint("c1", 1)
        assert _names(tmp_path / "jobs/job-1/checkpoints") == {"c1.json"}


async def test_an_append_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    """A line that does not fit is removed completely, so that the next one does not join it."""
    async with Store(tmp_path).create(JOB) as records:
        first = await records.append(_event(1), _line(1))
        path = tmp_path / "jobs/job-1/runs/run/attempt-1/events.jsonl"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        try:
            with pytest.raises(StoreError, match="no space left to write"):
                await records.append(_event(2), _line(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == first.line + b"\n"
        second = await records.append(_event(2), _line(2))
        assert second.event.position == 2


async def test_secrets_are_masked_in_every_record(tmp_path: Path) -> None:
    """No file of the store and no returned event contains a known value."""
    secret = 'sk-"canary"-1234'
    async with Store(tmp_path).create(JOB, mask=mask([secret])) as records:
        recorded = await records.append(_event(1, delta=secret), _line(1, delta=secret))
        await records.keep_result("run", _result("call", f"key={secret}"))
        await records.keep_reply("run", "1/0", Reply(text=secret))
        assert recorded.event == _event(1, delta="[masked]").with_(position=1)
        assert records.results("run") == (_result("call", "key=[masked]"),)
    assert b"canary" not in _all_bytes(tmp_path)


def _all_bytes(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


async def test_appending_is_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate of appends is printed; the required rate depends on the machine."""
    event = _event(1, delta="y" * 800)
    line = encode(event).rstrip(b"\n")
    count = 5000
    async with Store(tmp_path).create(JOB, mask=mask([f"secret-{number:04}" for number in range(20)])) as records:
        began = time.perf_counter()
        for _ in range(count):
            await records.append(event, line)
        seconds = time.perf_counter() - began
    with capsys.disabled():
        sys.stdout.write(f" [{count / seconds:.0f} events/s] ")
    path = tmp_path / "jobs/job-1/runs/run/attempt-1/events.jsonl"
    assert json.loads(path.read_bytes().splitlines()[-1])["position"] == count
