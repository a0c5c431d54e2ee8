"""The files of a job are those of earlier versions, so a job that one of them began is continued."""

import shutil
from pathlib import Path

from orchestrator.store import Store
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.event import DockerContainerStatus, ProxyAccess, StreamRunResult
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.generation import Reply
from orchestrator.wire.grant_record import GrantRecord, ResourceLimits, SkillAccess
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.line import encode
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.run import RunSetting, Start
from orchestrator.wire.usage import Usage

GOLDEN = Path(__file__).parent / "golden"
KEY = bytes(range(32))
CHECKPOINT = Checkpoint(
    id="c1", job_id="job-1", run_id="r1", status=Status.INIT, step_number=1, messages=(),
    expert=ExpertId(key="one", name="one", version="1.0.0"), usage=Usage(),
)  # fmt: skip
START = Start(checkpoint=CHECKPOINT, query="go")
REPLY = Reply(text="hello", usage=Usage(input_tokens=3, output_tokens=1, total_tokens=4))
RESULT = ToolResult(id="call", skill_name="s", tool_name="t", result=(TextPart(id="p", text="done"),))
SETTING = RunSetting(
    job_id="job-1", run_id="r1", expert_key="one", model="m", provider_name="scripted", reasoning_budget="low",
    max_steps=1, max_retries=0, timeout_ms=1, started_at=1, updated_at=1,
    granted=GrantRecord(
        exec=SkillAccess(env=("NOTE",)), skills={"web": SkillAccess(hosts=("api.example.com",))}, image="img:1",
        user="1000:100", limits=ResourceLimits(memory=1, tmp=2, cpus=0.5, pids=None, files=3),
    ),
)  # fmt: skip
FROM_SANDBOX = StreamRunResult(
    id="e1", timestamp=1, job_id="job-1", run_id="r1", attempt=2, seq=1, expert_key="one", step_number=1, delta="x"
)
OF_ATTEMPT = DockerContainerStatus(
    id="e2", timestamp=2, job_id="job-1", run_id="r1", attempt=2, status="running", service="b"
)
OF_RUN = ProxyAccess(id="e3", timestamp=3, job_id="job-1", run_id="r1", action="allowed", domain="a.example", port=443)


async def write(root: Path) -> None:
    """Write one of each record."""
    store = Store(root, key=KEY)
    async with store.create(JobRecord(id="job-1", coordinator_expert_key="one", started_at=1), start=START) as records:
        await records.keep_setting(SETTING, 1)
        await records.keep_setting(SETTING, 4)
        await records.keep_checkpoint(CHECKPOINT)
        await records.keep_result("r1", RESULT)
        await records.keep_reply("r1", "1/0", REPLY)
        await records.append(FROM_SANDBOX, encode(FROM_SANDBOX).rstrip())
        await records.append(OF_ATTEMPT)
        await records.append(OF_RUN)


def files(root: Path) -> dict[str, bytes]:
    """The content of each file below a directory, but for the lock, which names a process."""
    found = [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


async def test_every_record_is_written_as_before(tmp_path: Path) -> None:
    """Same paths, same bytes."""
    await write(tmp_path)
    assert files(tmp_path) == files(GOLDEN)


async def test_every_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Equal values, and the attempts, numbers and positions from which a resumed job continues."""
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    async with Store(tmp_path, key=KEY).open("job-1") as records:
        assert (records.starts(), records.setting("r1")) == ((START,), SETTING.with_(sandboxes=(1, 4)))
        assert (records.earlier("r1"), records.results("r1")) == (CHECKPOINT, (RESULT,))
        assert (await records.reply("r1", "1/0"), records.recorded_usage("r1")) == (REPLY, {"1/0": REPLY.usage})
        assert [each.event for each in records.events()] == [
            FROM_SANDBOX.with_(position=1),
            OF_ATTEMPT.with_(position=2),
            OF_RUN.with_(position=3),
        ]
        assert [records.last_seq(AttemptRef("job-1", "r1", attempt)) for attempt in (1, 2)] == [0, 1]
        assert (await records.append(OF_RUN)).event.position == 4
