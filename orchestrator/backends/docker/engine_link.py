"""Whether Sandboxes of an engine are linked by sockets or by streams, and why; pure.

A socket in a mounted directory works only where the engine and the orchestrator share a kernel and its files. No
product is known by its name: some versions of one share sockets, others do not.
"""

from dataclasses import dataclass

from orchestrator.backends.engine_info import EngineInfo, LinkChoice
from orchestrator.sandbox.api import LinkKind


@dataclass(frozen=True, slots=True)
class HostKernel:
    """The kernel that the orchestrator runs on: `sys.platform`, and its release."""

    platform: str
    release: str

    def is_shared(self, engine: EngineInfo) -> bool:
        """Whether an engine on this machine has this kernel; one that does not report its kernel counts as such."""
        return self.platform == "linux" and engine.kernel in {"", self.release}


def engine_link(
    engine: EngineInfo, host: HostKernel, *, is_local: bool, has_refused: bool, sees_files: bool = True
) -> LinkChoice:
    """Choose the link of an engine's Sandboxes.

    `is_local` is whether the engine is reached by a unix socket or a loopback address. `has_refused` is whether a
    Sandbox of this engine once did not reach its socket, `sees_files` false if the engine does not see the workspace.
    """
    if not is_local:
        return LinkChoice(LinkKind.STREAM, "the engine is on another machine")
    if host.platform != "linux":
        return LinkChoice(LinkKind.STREAM, "the engine runs in a virtual machine")
    if not host.is_shared(engine):
        return LinkChoice(LinkKind.STREAM, f"the engine's kernel is {engine.kernel}, this machine's {host.release}")
    if not sees_files:
        return LinkChoice(LinkKind.STREAM, "the engine does not see this machine's files")
    if has_refused:
        return LinkChoice(LinkKind.STREAM, "a Sandbox of this engine did not reach its socket before")
    return LinkChoice(LinkKind.SOCKET, "the engine runs on this machine's kernel")
