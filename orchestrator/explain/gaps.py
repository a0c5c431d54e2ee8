"""What the kernel or the engine of this machine does not enforce, though a Sandbox requests it; pure."""

from collections.abc import Iterator

from orchestrator.backends.engine_info import EngineInfo
from orchestrator.units import amount
from orchestrator.wire.facts import Facts, unprotected
from orchestrator.wire.grant_record import ResourceLimits

NO_ISOLATION = "no isolation from this machine's files and network: an Expert is a process with its caller's rights"
OPEN_NETWORK = "Sandboxes may reach whatever the network of their cluster lets Pods reach"
_NO_LIMITS = "memory, processor, processes and files are not bounded; read-only and hidden files are neither"


def gaps(
    engine_info: EngineInfo | None, facts: Facts | None, limits: ResourceLimits, problem: str | None
) -> tuple[str, ...]:
    """Return what is not enforced, a sentence each; `facts` are from inside a Sandbox, `problem` is why none exist."""
    return tuple(_gaps(engine_info, facts, limits, problem))


def _gaps(
    engine_info: EngineInfo | None, facts: Facts | None, limits: ResourceLimits, problem: str | None
) -> Iterator[str]:
    isolates = engine_info is None or engine_info.isolates
    if not isolates:
        yield NO_ISOLATION
        yield _NO_LIMITS
    if problem is not None:
        yield f"what holds inside could not be checked: {problem}"
    if facts is not None:
        yield from unprotected(facts)
        if isolates:
            yield from _isolation_gaps(facts)
            yield from _limit_gaps(facts, limits)
    if engine_info is not None:
        yield from (f"the engine warns: {warning}" for warning in engine_info.warnings)


def _isolation_gaps(facts: Facts) -> Iterator[str]:
    if facts.capabilities:
        yield "processes inside have capabilities, or can get some"
    if not facts.no_new_privileges:
        yield "set-user-id programs inside give privileges"
    if not facts.seccomp and facts.filtered:
        yield "no seccomp filter of the engine: a Sandbox lacks only the system calls that the runtime refuses"
    elif not facts.seccomp:
        yield "no seccomp filter: every system call of this kernel is open to a Sandbox"
    if not facts.profile:
        yield "no AppArmor or SELinux profile: only seccomp, namespaces and missing capabilities guard this kernel"


def _limit_gaps(facts: Facts, limits: ResourceLimits) -> Iterator[str]:
    if facts.memory is None or facts.memory > limits.memory:
        yield f"memory is not bounded to {amount(limits.memory)}"
    if limits.pids is None:
        if facts.pids is None:
            yield "processes are bounded by their node alone, if at all (podPidsLimit of its kubelet)"
    elif facts.pids is None or facts.pids > limits.pids:
        yield f"processes are not bounded to {limits.pids}"
    if facts.cpus is None or facts.cpus > limits.cpus:
        yield f"processor time is not bounded to {limits.cpus:g} cores"
    if facts.files is None or facts.files > limits.files:
        yield f"open files are not bounded to {limits.files}"
