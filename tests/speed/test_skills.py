"""What a skill adds to a cold Run, next to the start of its server alone."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.wire.skill import StdioSkill
from tests.support.scripted_host import a_run, ended, expert, says, scripted_host, start_runtime

TOOLS = Path(__file__).parents[1] / "support" / "mcp_servers" / "tools.py"
ROUNDS = 5
MOST_SECONDS = 0.2
FIRST = (
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
)


async def asked_after(directory: Path, skills: Sequence[StdioSkill]) -> float:
    """Seconds from the start of a cold runtime to its first request to the model."""
    base, *_ = expert().skills
    run = a_run(expert=expert(skills=(base, *skills)))
    async with scripted_host(directory, run, (says("Done"),)) as host:
        (directory / "workspace" / "tools.py").write_bytes(TOOLS.read_bytes())
        began = time.perf_counter()
        process = await start_runtime(host)
        await host.asked.wait()
        seconds = time.perf_counter() - began
        assert (await ended(host, process)).code == 0
    return seconds


def alone(command: Sequence[str]) -> float:
    """Seconds that the server takes to start and to list its tools."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in FIRST:
            server.stdin.write(json.dumps(message).encode() + b"\n")
            server.stdin.flush()
            assert server.stdout.readline()
        seconds = time.perf_counter() - began
        server.stdin.close()
    return seconds


@pytest.mark.alone
async def test_a_skill_costs_a_cold_run_little_more_than_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most 200 ms, in interleaved rounds."""
    costs = []
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        script = str(directory / "with" / "workspace" / "tools.py")
        skill = StdioSkill(name="kit", command=sys.executable, args=("-I", script), lazy_init=False)
        for name in ("with", "without"):
            (directory / name).mkdir(parents=True)
        without = await asked_after(directory / "without", ())
        costs.append(await asked_after(directory / "with", (skill,)) - without - alone((sys.executable, "-I", script)))
    with capsys.disabled():
        print(f"\na skill costs {statistics.median(costs) * 1000:.0f} ms more than its server", end="")  # noqa: T201
    assert statistics.median(costs) < MOST_SECONDS
