"""A Docker engine of the tests' own, which they may stop, kill and freeze."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import engine
from tests.support.processes import command_lines

SECONDS = 60


@dataclass
class SecondEngine:
    """Where it is and what runs it: a daemon, and below it a containerd that outlives it.

    In the place of the directory `hidden` both see an empty one, as on another machine.
    """

    root: Path
    hidden: Path | None = None
    containerd: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What DOCKER_HOST names."""
        return f"unix://{self.root}/docker.sock"

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        if self.containerd is None:
            below = ("--root", f"{self.root}/c", "--state", f"{self.root}/s", "--address", self._below)
            self.containerd = self._spawned("containerd", *below)
        # In a separate network: without a bridge it would remove docker0, the first engine's.
        self.process = self._spawned(
            "unshare", "--net", "dockerd", "--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/exec",
            "--pidfile", f"{self.root}/dockerd.pid", "--containerd", self._below, "-H", self.address,
            "--bridge", "none", "--iptables=false", "--ip-masq=false",
        )  # fmt: skip
        wait = ["sh", "-c", f"until docker -H {self.address} version >/dev/null 2>&1; do sleep 0.1; done"]
        subprocess.run(wait, timeout=SECONDS, check=True)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon, gently or not."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(SECONDS)
            self.process = None

    def end(self) -> None:
        """End all that was started."""
        self.stop()
        if self.containerd is not None:
            self.containerd.terminate()
            self.containerd.wait(SECONDS)

    @property
    def _below(self) -> str:
        return f"{self.root}/containerd.sock"

    def _spawned(self, *command: str) -> subprocess.Popen[bytes]:
        if self.hidden is not None and self.containerd is None:
            hide = f'mount --make-rprivate / && mount -t tmpfs tmpfs "{self.hidden}" && exec "$@"'
            command = ("unshare", "--mount", "sh", "-c", hide, "sh", *command)
        elif self.hidden is not None and self.containerd is not None:
            # Both must see the mounts of containers.
            enter = f'until [ -S "{self._below}" ]; do sleep 0.1; done; exec nsenter --target "$@"'
            command = ("sh", "-c", enter, "sh", str(self.containerd.pid), "--mount", *command)
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def docker(self, *arguments: str) -> str:
        """Run a docker command with it."""
        command = ["docker", "-H", self.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    async def restarted(self, how: signal.Signals) -> None:
        """Stop it and start it again."""
        await asyncio.to_thread(self.stop, how)
        await asyncio.to_thread(self.start)


@asynccontextmanager
async def second_engine(root: Path, hidden: Path | None = None) -> AsyncIterator[SecondEngine]:
    """Run an engine below `root` that has the runtime image; it is gone with all it made when the block is left."""
    found = SecondEngine(root, hidden)
    try:
        await asyncio.to_thread(root.mkdir, parents=True)
        await asyncio.to_thread(found.start)
        image = engine.runtime_image()
        copy = f"docker save {image} | docker -H {found.address} load"
        await asyncio.to_thread(subprocess.run, ["sh", "-c", copy], check=True, stdout=subprocess.DEVNULL)
        yield found
    finally:
        await asyncio.to_thread(_remove, found)


def _remove(found: SecondEngine) -> None:
    if found.process is not None:
        with suppress(ProcessLookupError):
            found.process.send_signal(signal.SIGCONT)
        with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            containers = found.docker("ps", "-aq").split()
            if containers:
                found.docker("rm", "--force", *containers)
    found.end()
    _end_shims(found)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{found.root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)  # noqa: S607 # wherever it is
    shutil.rmtree(found.root, ignore_errors=True)


def _end_shims(found: SecondEngine) -> None:
    """End what a daemon that was killed in the middle of a start has forgotten: a shim, and the container's process."""
    for process, command in command_lines():
        if f"-address\0{found.root}/".encode() in command:
            subprocess.run(["pkill", "-KILL", "-P", str(process)], check=False)  # noqa: S607 - its child
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
