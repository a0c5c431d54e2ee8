"""A MCP server with a key in its environment, and everything that others could want to get at.

The file that its argument names contains where that is, but none of the values.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path

HERE = Path(__file__).parent


def serve() -> str:
    """Serve."""
    return "served"


def own(attacks: str, outcomes: str) -> str:
    """Run all attacks of a file from here, where they are allowed, and write their results to another."""
    program = str(HERE / "attacker.py")
    done = subprocess.run(
        [sys.executable, "-I", program, attacks, outcomes], capture_output=True, text=True, timeout=100, check=False
    )
    return done.stderr or "done"


abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0victim")
abstract.listen()
Path("secret").write_text(os.environ["VICTIM_KEY"])
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
Path(sys.argv[1]).write_text(json.dumps({"pid": os.getpid(), "home": str(Path.cwd()), "proxy": proxy.port}))
runpy.run_path(str(HERE / "tools.py"))["serve"]("victim", "1.0.0", serve=serve, own=own)
