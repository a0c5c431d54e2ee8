"""The facts that a Sandbox reports, as far as they can be checked here."""

import os
from pathlib import Path

from orchestrator.runtime import kernel_probe, landlock
from orchestrator.runtime.link import attach
from orchestrator.runtime.transport import UnixTransport
from orchestrator.wire import frames
from orchestrator.wire.facts import Facts, Inodes
from tests.support.scripted_host import a_run, scripted_host


def test_it_looks_around() -> None:
    """They agree with the kernel's report about this process, read in another way."""
    status = Path("/proc/self/status").read_text().splitlines()
    limits = Path("/proc/self/limits").read_text().splitlines()
    found = kernel_probe.probe()
    assert found.landlock == landlock.abi()
    assert found.uid == os.getuid()
    assert found.no_new_privileges is ("NoNewPrivs:\t1" in status)
    assert found.files == int(next(line.split()[4] for line in limits if line.startswith("Max open files")))
    assert found.seccomp is ("Seccomp:\t2" in status)
    assert found.capabilities is any(line.startswith("Cap") and int(line.split()[1], 16) for line in status)


async def test_its_surroundings_are_reported_first(tmp_path: Path) -> None:
    """They are in the first frame, before any code of an Expert runs."""
    mine = Facts(landlock=3, seccomp=True, capabilities=False, uid=7, memory=1, cpus=1.5)
    async with scripted_host(tmp_path, a_run()) as host, attach(UnixTransport(host.state), mine):
        assert host.attached == [frames.Attach(facts=mine)]


async def test_its_directories_are_reported_too(tmp_path: Path) -> None:
    """The inodes of its directories are reported, whatever their paths inside."""
    (tmp_path / "link").symlink_to(tmp_path)
    own, top = os.stat(tmp_path), os.stat("/")  # noqa: PTH116 - as the runtime sees them
    mine = Inodes(state=(own.st_dev, own.st_ino), workspace=(top.st_dev, top.st_ino))
    assert kernel_probe.probe_inodes(tmp_path / "link", Path("/")) == mine
    assert kernel_probe.probe_inodes(tmp_path, tmp_path / "absent") is None
    async with scripted_host(tmp_path, a_run()) as host, attach(UnixTransport(host.state), None, mine):
        assert host.attached == [frames.Attach(inodes=mine)]
