"""A Podman service of root's, with its own store, apart from any Podman of this machine."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import engine

SECONDS = 60

_RUNTIME = Path(__file__).parents[2] / "dev" / "stand-ins" / "modest-runc"


def possible() -> bool:
    """Whether such a service can be started here."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("podman", "runc"))


@dataclass(frozen=True)
class PodmanEngine:
    """The service. Its containers have the runtime image that the Docker engine has."""

    root: Path

    @property
    def address(self) -> str:
        """What DOCKER_HOST names."""
        return f"unix://{self.root}/api.sock"

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman with the service's store."""
        command = [*self._podman, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=check).stdout

    def start(self) -> subprocess.Popen[bytes]:
        """Start the service, and wait until it answers."""
        for name in ("store", "run"):
            (self.root / name).mkdir(parents=True)
        command = [*self._podman, "system", "service", "--time=0", self.address]
        with (self.root / "log").open("wb") as log:
            # conmon writes a file `oom` into its working directory (conmon#504).
            service = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.root, start_new_session=True)
        until = time.monotonic() + SECONDS
        while not self._answers():
            assert time.monotonic() < until, (self.root / "log").read_text()
            time.sleep(0.1)
        return service

    def load(self, image: str) -> None:
        """Copy an image from the Docker engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:  # noqa: S607
            command = [*self._podman, "load", "--quiet"]
            subprocess.run(command, stdin=save.stdout, capture_output=True, timeout=5 * SECONDS, check=True)

    @property
    def _podman(self) -> tuple[str, ...]:
        places = ("--root", f"{self.root}/store", "--runroot", f"{self.root}/run", "--tmpdir", f"{self.root}/tmp")
        settings = ("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(_RUNTIME))
        return ("podman", *places, *settings)

    def _answers(self) -> bool:
        ask = ("curl", "--silent", "--fail", "--unix-socket", f"{self.root}/api.sock", "http://podman/_ping")
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0


@contextmanager
def podman_engine(root: Path) -> Iterator[PodmanEngine]:
    """Run the service below `root`; afterwards remove its containers, end it and delete its files."""
    found = PodmanEngine(root)
    service = found.start()
    try:
        found.load(engine.runtime_image())
        yield found
    finally:
        found.podman("rm", "--all", "--force", "--time", "0", check=False)
        service.terminate()
        service.wait(SECONDS)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{root}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)  # noqa: S607
        shutil.rmtree(root)
