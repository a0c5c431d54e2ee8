"""What a Sandbox tells of itself, as far as it can be known from here."""

import os
from pathlib import Path

from orchestrator.runtime import facts, landlock
from orchestrator.runtime.gate import Gate
from orchestrator.runtime.link import attach
from orchestrator.wire import link
from orchestrator.wire.facts import Facts, Inodes
from tests.support.scripted_host import a_run, scripted_host


def test_it_looks_around() -> None:
    """The kernel's own words about this process, by another way than ours."""
    status = Path("/proc/self/status").read_text().splitlines()
    limits = Path("/proc/self/limits").read_text().splitlines()
    found = facts.find()
    assert found.landlock == landlock.abi()
    assert found.uid == os.getuid()
    assert found.no_new_privileges is ("NoNewPrivs:\t1" in status)
    assert found.files == int(next(line.split()[4] for line in limits if line.startswith("Max open files")))
    assert found.seccomp is ("Seccomp:\t2" in status)
    assert found.capabilities is any(line.startswith("Cap") and int(line.split()[1], 16) for line in status)


async def test_it_is_told_first(tmp_path: Path) -> None:
    """With the very first frame, before there is anything of an Expert's to run."""
    mine = Facts(landlock=3, seccomp=True, capabilities=False, uid=7, memory=1, cpus=1.5)
    async with scripted_host(tmp_path, a_run()) as host, attach(Gate(host.state), mine):
        assert host.attached == [link.Attach(facts=mine)]


async def test_its_directories_are_told_too(tmp_path: Path) -> None:
    """Which they are, whatever they are called inside."""
    (tmp_path / "link").symlink_to(tmp_path)
    own, top = os.stat(tmp_path), os.stat("/")  # noqa: PTH116 - as the runtime sees them
    mine = Inodes(state=(own.st_dev, own.st_ino), workspace=(top.st_dev, top.st_ino))
    assert facts.find_inodes(tmp_path / "link", Path("/")) == mine
    assert facts.find_inodes(tmp_path, tmp_path / "absent") is None
    async with scripted_host(tmp_path, a_run()) as host, attach(Gate(host.state), None, mine):
        assert host.attached == [link.Attach(inodes=mine)]
