import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from orchestrator.runtime import init_process
from orchestrator.runtime.confinement import confine
from orchestrator.runtime.domain import Domain

PATH = {"PATH": "/usr/bin:/bin"}

def states(parent):
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(parent):
            yield fields[0]

async def main():
    init_process.become_init()
    cwd = os.open("/", os.O_PATH)
    codes = []
    async with confine(Domain(write=(Path("/"),))) as spawner:
        for code in range(20):
            # Each leaves an orphan that ends at once, while exit codes of many are awaited.
            child = await spawner.start(("sh", "-c", f"(setsid true &); exit {code}"), env=PATH, cwd=cwd)
            codes.append(await child.wait())
        child = await spawner.start(("sh", "-c", "(setsid sleep 60 &); sleep 60 & exit 0"), env=PATH, cwd=cwd)
        await child.wait()
        # Those that end by themselves have, and were reaped; the two that sleep are left.
        while "Z" in states(os.getpid()) or len(init_process._others()) > 2:
            await asyncio.sleep(0)
    left = len(init_process._others())
    ended = await init_process.kill_other_processes()
    while list(states(os.getpid())):
        await asyncio.sleep(0)
    dumpable = os.stat("/proc/self/environ").st_uid == os.getuid() and os.getuid() != 0
    print(json.dumps([codes, left, ended, sorted(init_process._others()), dumpable]))

asyncio.run(main())
"""


async def test_first_process() -> None:
    """Orphans are reaped, awaited exit codes are never lost, and at the end no other process is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", PROGRAM, str(ROOT), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        stdout, _ = await process.communicate()
    assert stdout == b"[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19], 2, true, [], false]\n"
