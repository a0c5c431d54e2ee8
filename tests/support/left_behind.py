"""What a run could leave on a machine."""

import subprocess
from pathlib import Path

MANAGED = "app.kubernetes.io/managed-by=perstack-orch"


def left_behind(engine_answers: bool) -> set[str]:  # noqa: FBT001 - a fact about the machine, not a switch
    """Name every container, runtime process, and state directory of ours on this machine."""
    found = {str(path) for path in Path("/tmp").glob("perstack-*")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"orchestrator.runtime" in command:
            found.add(f"process {process.name}: {command.decode(errors='replace')}")
    if engine_answers:
        listing = ["docker", "ps", "--all", "--filter", f"label={MANAGED}", "--format", "container {{.Names}}"]
        found |= set(
            subprocess.run(listing, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
        )
    return found
