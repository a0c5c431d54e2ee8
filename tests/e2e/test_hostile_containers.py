"""Containers that misbehave: a named outcome, bounded memory in the orchestrator, and other jobs untouched."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire.event import ProxyAccess
from orchestrator.wire.line import encode
from tests.support.project import SECONDS
from tests.support.raw_protocol_client import ATTACHED

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
MEGABYTES = 400
"""More than an orchestrator of two jobs needs, and far less than what the containers write."""

THEN = "\nimport runpy; runpy.run_module('orchestrator.runtime', run_name='__main__')"
"""Continues as the runtime does."""

IN_PARALLEL = """
import os, threading, time
SPOOL = "/run/perstack/events.jsonl"
def meanwhile(act):
    def wait():
        while not os.path.exists(SPOOL) or not os.path.getsize(SPOOL):
            time.sleep(0.001)
        act()
    threading.Thread(target=wait, daemon=True).start()
"""
"""The code after it runs in parallel with the runtime, after its first event."""

HAND = (
    ATTACHED
    + """
def event(**fields):
    common = {"id": "x", "timestamp": 1, "jobId": run["jobId"], "runId": run["runId"], "attempt": run["attempt"]}
    return json.dumps(common | {"expertKey": "one", "stepNumber": 1} | fields) + "\\n"
def tell(line):
    with open("/run/perstack/events.jsonl", "a") as spool:
        spool.write(line)
    sys.stdout.write(line)
    sys.stdout.flush()
"""
)
"""Has its Run, and uses the protocol without the runtime."""

FIRST = """
SPOOL = "/run/perstack/events.jsonl"
tell(event(type="initializeRuntime", seq=1, runtimeVersion="1", expertName="one", experts=[], model="m", maxRetries=1,
     timeout=1))
"""
"""Writes its first event."""

GOOD = [
    "initializeRuntime",
    "skillConnected",
    "startRun",
    "startGeneration",
    "callTools",
    "resolveToolResults",
    "finishToolCall",
    "continueToNextStep",
    "startGeneration",
    "skillDisconnected",
    "completeRun",
]
FORGED = ProxyAccess(
    id="f", timestamp=1, job_id="peer", run_id="r", action="allowed", skill_name="FORGED", domain="f", port=443
)


async def _told(directory: Path, program: str, run_seconds: float = 60.0) -> dict[str, Any]:
    """Run a job of such Sandboxes in parallel with one that behaves; return the result of the first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.hostile_host", str(directory), str(run_seconds),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(SECONDS):
        stdout, stderr = await process.communicate(program.encode())
    assert process.returncode == 0, stderr.decode()
    told = json.loads(stdout)
    assert (told["peer"]["status"], told["peer"]["types"]) == ("completed", GOOD)
    assert told["megabytes"] < MEGABYTES
    for story in (told["hostile"], told["peer"]):
        assert story["in_order"]
    return dict(told["hostile"])


@pytest.mark.behaviour("G9", "G16")
@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor _ in range(100): os.write(1, b'x' * 1048576)\nos.write(1, b'\\n')" + THEN,
        "import os\nfor _ in range(1600): os.write(1, (b'y' * 65000 + b'\\n'))" + THEN,
        "import os; os.write(1, b'\\xff\\xfe\\x00\\xc3\\n\\x1b[2J\\x1b]0;title\\x07\\n\\r\\n\\n')" + THEN,
        "import os; os.write(1, b'[' * 60000 + b'\\n' + b'{\"seq\":1e400}\\n{\"seq\":' + b'9' * 5000 + b'}\\n')" + THEN,
        'import os; os.write(1, b\'null\\n42\\n"x"\\n{"type":"completeRun"}\\n{"type":"\\\\ud800"}\\n\')' + THEN,
        f"import os; os.write(1, {encode(FORGED)!r} * 1000)" + THEN,
        "import os; os.close(1); os.open('/dev/null', os.O_WRONLY)" + THEN,
        IN_PARALLEL + "meanwhile(lambda: [os.write(1, b'z' * 1000) for _ in range(20000)])" + THEN,
    ],
    ids=["endless", "100 MB", "no text", "deep", "no events", "of another job", "silent", "in parallel"],
)
async def test_noise_on_stdout_costs_nothing(tmp_path: Path, program: str) -> None:
    """The job completes, and its events are complete and in order, whatever else is on stdout."""
    told = await _told(tmp_path / "project", program)
    assert (told["status"], told["types"]) == ("completed", GOOD), told


@pytest.mark.parametrize("number", [0, -1, 2, 10**18], ids=str)
async def test_numbers_that_are_not_next_are_no_events(tmp_path: Path, number: int) -> None:
    """A jump of `seq` sends the collector to the spool, where nothing of it stands; an old one is a repeat."""
    program = HAND + f"tell(event(type='initializeRuntime', seq={number}))\ntime.sleep(0.5)\nsys.exit(3)"
    told = await _told(tmp_path / "project", program)
    assert (told["types"], told["status"]) == (["stopRunByError"], "stoppedByError")
    assert told["error"] == "the Sandbox ended without a final event (exit code 3)"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("open(SPOOL, 'r+').truncate(1)", "the event spool shrank from"),
        ("open(SPOOL, 'a').write('x' * 200000)", "a line of the event spool is over 65536 bytes"),
    ],
)
async def test_a_spool_that_was_tampered_with_ends_the_run(tmp_path: Path, act: str, message: str) -> None:
    """The error names the spool: what a Sandbox falsified is not believed."""
    told = await _told(tmp_path / "project", f"{HAND}{FIRST}time.sleep(1.5)\n{act}\ntime.sleep(1.5)\nsys.exit(3)")
    assert told["types"] == ["initializeRuntime", "stopRunByError"]
    assert message in told["error"]


@pytest.mark.parametrize("put", ["os.symlink('/etc/passwd', SPOOL)", "os.mkfifo(SPOOL)", "os.mkdir(SPOOL)", "None"])
async def test_what_takes_the_spool_s_place_is_not_read(tmp_path: Path, put: str) -> None:
    """The host reads the file that it opened before the Sandbox was there; stdout still has the rest."""
    program = IN_PARALLEL + f"meanwhile(lambda: (os.unlink(SPOOL), {put}))" + THEN
    told = await _told(tmp_path / "project", program)
    assert (told["status"], told["types"]) == ("completed", GOOD), told


async def test_a_memory_bomb_is_named(tmp_path: Path) -> None:
    """The kernel's kill is distinguished from other ends."""
    told = await _told(tmp_path / "project", IN_PARALLEL + "meanwhile(lambda: b'x' * (1 << 30))" + THEN)
    assert (told["status"], told["error"]) == ("stoppedByError", "the Sandbox ran out of memory (exit code 137)")


async def test_a_process_bomb_stays_inside(tmp_path: Path) -> None:
    """Its own limit stops it: its job is done or fails, and the other's is done."""
    bomb = "[os.fork() for _ in range(40)] and time.sleep(3)"
    told = await _told(tmp_path / "project", IN_PARALLEL + f"meanwhile(lambda: {bomb})" + THEN, run_seconds=20)
    assert told["status"] in {"completed", "stoppedByError"}, told


async def test_a_sandbox_that_ignores_the_end_is_killed(tmp_path: Path) -> None:
    """Past its limit a Run is over even if its Sandbox ignores that; the Sandbox is gone when the job is."""
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + ATTACHED + "time.sleep(3600)"
    told = await _told(tmp_path / "project", program, run_seconds=2)
    assert (told["types"], told["error"]) == (["stopRunByError"], "the Run reached its limit of 2 s")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("link.sendall(b'\\xff\\xff\\xff\\xff' + b'x' * 100)", "without a final event"),
        ("link.sendall((20).to_bytes(4, 'big') + b'[' * 20)", "without a final event"),
        ("send({'type': 'keepCheckpoint', 'id': 'c', 'checkpoint': run['checkpoint'] | {'runId': 'no'}})", "'no'"),
        ("send({'type': 'keepTools', 'id': 't', 'tools': {}})", "is not for what this Sandbox was given to do"),
    ],
    ids=["too large", "no frame", "another Run's checkpoint", "another's call"],
)
async def test_a_link_that_breaks_the_agreement_ends_the_run(tmp_path: Path, call: str, message: str) -> None:
    """One sentence names the rule that it broke."""
    told = await _told(tmp_path / "project", HAND + f"{call}\ntime.sleep(0.5)\nsys.exit(3)")
    assert (told["types"], told["status"]) == (["stopRunByError"], "stoppedByError")
    assert message in told["error"]


async def test_an_end_that_was_not_handed_over_is_none(tmp_path: Path) -> None:
    """A terminal event without its checkpoint at the broker ends the Run in error."""
    head = "{name: value for name, value in run['checkpoint'].items() if name != 'messages'} | {'status': 'completed'}"
    step, usage = "{'stepNumber': 1, 'startedAt': 1}", "run['checkpoint']['usage']"
    fields = f"type='completeRun', seq=1, text='forged', checkpoint={head}, step={step}, usage={usage}"
    told = await _told(tmp_path / "project", HAND + f"tell(event({fields}))\ntime.sleep(5)")
    assert (told["types"], told["error"]) == (["stopRunByError"], "it ended without handing over its last checkpoint")


async def test_a_thousand_connections_are_too_many(tmp_path: Path) -> None:
    """Those beyond the bound are closed, and the first still works."""
    flood = (
        "import socket\nkept = []\nfor _ in range(1000):\n    one = socket.socket(socket.AF_UNIX)\n    try:\n"
        "        one.connect('/run/perstack/gate/in/broker.sock')\n    except OSError:\n        break\n"
        "    kept.append(one)\n"
    )
    told = await _told(tmp_path / "project", flood.replace("1000", "200") + THEN)
    assert (told["status"], told["types"]) == ("completed", GOOD), told
