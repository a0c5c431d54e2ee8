from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.docker.podman import closed, is_unexplained, missing_source


def test_the_sandboxs_own_tmpfs_stays_as_it_is() -> None:
    """Only places that the Sandbox does not mount itself are added."""
    body: dict[str, Any] = {"Image": "x:1", "HostConfig": {"Memory": 7, "Tmpfs": {"/tmp": "rw", "/run": "own"}}}
    found = closed(body)
    assert found["Image"] == "x:1"
    assert found["HostConfig"]["Memory"] == 7
    assert found["HostConfig"]["Tmpfs"] == {"/tmp": "rw", "/run": "own", "/var/tmp": "ro,nosuid,nodev,noexec,size=4k"}
    assert body["HostConfig"]["Tmpfs"] == {"/tmp": "rw", "/run": "own"}


def test_the_first_missing_source_is_found(tmp_path: Path) -> None:
    """Anonymous volumes have no source, and every file counts that exists."""
    present, missing = str(tmp_path), str(tmp_path / "missing")
    mounts = [{"Type": "volume"}, {"Type": "bind", "Source": present}, {"Type": "bind", "Source": "/dev/null"}]
    assert missing_source({"HostConfig": {"Mounts": mounts}}) is None
    assert missing_source({"HostConfig": {"Mounts": [*mounts, {"Type": "bind", "Source": missing}]}}) == missing


@pytest.mark.parametrize(
    ("actions", "unexplained"),
    [
        (("create", "init", "start", "die", "cleanup"), True),
        (("create", "init", "start", "kill", "die"), False),
        (("start", "stop", "die"), False),
        (("start", "die", "remove"), False),
        (("start", "die", "destroy"), False),
        ((), False),
        (("die",), False),
    ],
)
def test_a_kill_is_unexplained_without_a_client(actions: tuple[str, ...], *, unexplained: bool) -> None:
    """A log without the container's start is incomplete, and proves nothing."""
    assert is_unexplained(actions) is unexplained
