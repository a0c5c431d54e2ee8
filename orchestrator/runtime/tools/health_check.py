"""The tool `healthCheck`."""

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runtime.tools import define
from orchestrator.runtime.tools.paths import SHOWN_ROOT

DEFINITION = define("healthCheck", "Tell whether the built-in tools work, with uptime and memory.")


def execute(_args: Mapping[str, Any], _workspace: Path) -> Mapping[str, Any]:
    """Return uptime and memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "status": "ok",
        "workspace": SHOWN_ROOT,
        "uptime": f"{_age():.0f}s",
        "memory": {
            "heapUsed": f"{pages * resource.getpagesize() // 2**20}MB",
            "heapTotal": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}MB",
        },
        "pid": os.getpid(),
    }


def _age() -> float:
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
