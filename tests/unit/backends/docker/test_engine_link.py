from typing import Any

import pytest

from orchestrator.backends.docker.engine_link import HostKernel, engine_link
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.sandbox.api import LinkKind

ENGINE = EngineInfo("Docker 29", kernel="6.1.0-1-amd64")
HERE = HostKernel("linux", "6.1.0-1-amd64")
LOCAL: dict[str, Any] = {"is_local": True, "has_refused": False}


def test_an_engine_on_this_kernel_shares_sockets() -> None:
    """Also one that does not report its kernel: if it shares none, the first Sandbox finds out."""
    assert engine_link(ENGINE, HERE, **LOCAL).link is LinkKind.SOCKET
    assert engine_link(EngineInfo("Podman 4"), HERE, **LOCAL).link is LinkKind.SOCKET


@pytest.mark.parametrize(
    ("host", "known", "reason"),
    [
        (HERE, {"is_local": False}, "the engine is on another machine"),
        (HERE, {"sees_files": False}, "the engine does not see this machine's files"),
        (HERE, {"has_refused": True}, "a Sandbox of this engine did not reach its socket before"),
        (HostKernel("darwin", "24.1.0"), {}, "the engine runs in a virtual machine"),
        (HostKernel("linux", "6.6.0"), {}, "the engine's kernel is 6.1.0-1-amd64, this machine's 6.6.0"),
    ],
    ids=["remote", "blind", "refused", "macos", "kernel"],
)
def test_other_engines_get_streams(host: HostKernel, known: dict[str, Any], reason: str) -> None:
    """The reason is for the user who asks why."""
    assert engine_link(ENGINE, host, **(LOCAL | known)) == (LinkKind.STREAM, reason)
