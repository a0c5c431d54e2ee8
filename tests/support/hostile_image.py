"""The runtime's image behind a hostile entrypoint; one writes junk to stdout, and runs the attacks it is given."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from orchestrator.wire.event import ProxyAccess
from orchestrator.wire.line import encode
from tests.support import attacker, cluster, engine, production
from tests.support.traces import IMAGE_OF

_FORGED = ProxyAccess(
    id="forged",
    timestamp=1,
    job_id="another",
    run_id="another",
    action="allowed",
    skill_name="FORGED",
    domain="forged.example",
    port=443,
    reason=None,
)

ATTACKS = "attacks-container.json"
"""In the workspace: attacks of a process next to the runtime, which may do all that the container may."""

_PROGRAM = f"""\
import os, runpy, sys, time
junk = [
    b"FORGED: welcome", b"F" * 1048576, b"\\xff\\xfe\\x80FORGED", b"null", b'{{"seq":1e400}}',
    {encode(_FORGED).rstrip()!r}, b'{{"type":"toolMessage","message":"FORGED"}}', b"\\x1b[2J\\x1b]0;FORGED\\x07",
]
rest = b"\\n".join(junk) + b"\\n"
while rest:
    rest = rest[os.write(1, rest):]
attacks, spool = "/workspace/{ATTACKS}", "/run/perstack/events.jsonl"
if os.path.exists(attacks) and os.fork() == 0:
    # Once it has reported an event, it has connected, so its network is as it stays.
    while not os.path.exists(spool) or not os.path.getsize(spool):
        time.sleep(0.01)
    sys.argv = ["", attacks, "/workspace/outcomes-container.json", "at-once"]
    runpy.run_path("/attacker.py", run_name="__main__")
    os._exit(0)
python = "/opt/perstack/bin/python"
os.execv(python, [python, "-I", "-m", "orchestrator.runtime", *sys.argv[1:]])
"""


@functools.cache
def built(name: str, program: str, *more: str) -> str:
    """Build an image whose entrypoint is a program, with more files next to it, and return the image's name."""
    # Two test runs on one machine must not remove each other's image.
    image = f"{production.IMAGES}{name}:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="perstack-test-") as directory:
        context = Path(directory)
        (context / "program.py").write_text(program)
        for file in more:
            shutil.copy(file, context)
        for each in context.iterdir():
            each.chmod(0o644)
        files = " ".join(each.name for each in context.iterdir())
        entrypoint = 'ENTRYPOINT ["/opt/perstack/bin/python", "-I", "/program.py"]'
        (context / "Dockerfile").write_text(f"FROM {engine.runtime_image()}\nCOPY {files} /\n{entrypoint}\n")
        _docker("build", "--force-rm", "--label", f"{IMAGE_OF}={os.getpid()}", "--tag", image, directory)
    atexit.register(_docker, "rmi", "--force", image)
    return image


def in_the_engine() -> str:
    """Build it and return its name."""
    return built("hostile", _PROGRAM, attacker.__file__)


@functools.cache
def on_the_node() -> str:
    """Build it, load it onto the node of our own cluster, and return its name."""
    image = in_the_engine()
    cluster.control("load", image)
    return image


def _docker(*arguments: str) -> None:
    command = ["docker", *arguments]
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
