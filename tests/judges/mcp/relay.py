"""Between a client and a server over pipes: `relay.py RECORD [--older] COMMAND...`; RECORD gets the client's lines.

With `--older`, the server knows no `server/discover`.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

record, *command = sys.argv[1:]
is_older = command[0] == "--older"
child = subprocess.Popen(command[is_older:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert child.stdin is not None
assert child.stdout is not None
lock = threading.Lock()


def show(line: bytes) -> None:
    """Write a line to the client."""
    with lock:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def back() -> None:
    """Copy the server's lines."""
    assert child.stdout is not None
    for line in child.stdout:
        show(line)


threading.Thread(target=back, daemon=True).start()
with Path(record).open("ab", buffering=0) as file:
    for line in sys.stdin.buffer:
        file.write(line)
        message = json.loads(line)
        if is_older and message.get("method") == "server/discover":
            error = {"code": -32601, "message": "Method not found"}
            show(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n")
            continue
        child.stdin.write(line)
        child.stdin.flush()
child.stdin.close()
sys.exit(child.wait())
