"""What the kernel or the engine of this machine does not enforce, though a Sandbox asks for it. Pure."""

from collections.abc import Iterator

from orchestrator.backends.ground import Ground
from orchestrator.units import amount
from orchestrator.wire.facts import Facts, shortfall
from orchestrator.wire.granted import Bounds

NO_ISOLATION = "nothing keeps an Expert from this machine's files and network: it is a process with its caller's rights"
OPEN_NETWORK = "Sandboxes may reach whatever the network of their cluster lets Pods reach"
_IDLE = "memory, processor, processes and files are not bounded; read-only and hidden files are neither"


def unenforced(ground: Ground | None, facts: Facts | None, bounds: Bounds, problem: str | None) -> tuple[str, ...]:
    """Say, a sentence each, what does not hold; `facts` are from inside a Sandbox, `problem` is why there are none."""
    return tuple(_all(ground, facts, bounds, problem))


def _all(ground: Ground | None, facts: Facts | None, bounds: Bounds, problem: str | None) -> Iterator[str]:
    isolates = ground is None or ground.isolates
    if not isolates:
        yield NO_ISOLATION
        yield _IDLE
    if problem is not None:
        yield f"what holds inside could not be looked at: {problem}"
    if facts is not None:
        if (missing := shortfall(facts.landlock)) is not None:
            yield missing
        if isolates:
            yield from _walls(facts)
            yield from _bounds(facts, bounds)
    if ground is not None:
        yield from (f"the engine says: {warning}" for warning in ground.warnings)


def _walls(facts: Facts) -> Iterator[str]:
    if facts.capabilities:
        yield "processes inside have capabilities, or can get some"
    if not facts.no_new_privileges:
        yield "set-user-id programs inside give privileges"
    if not facts.seccomp:
        yield "no seccomp filter: every system call of this kernel is open to a Sandbox"
    if not facts.profile:
        yield "no AppArmor or SELinux profile: only seccomp, namespaces and missing capabilities guard this kernel"


def _bounds(facts: Facts, bounds: Bounds) -> Iterator[str]:
    if facts.memory is None or facts.memory > bounds.memory:
        yield f"memory is not bounded to {amount(bounds.memory)}"
    if bounds.pids is None:
        if facts.pids is None:
            yield "processes are bounded by their node alone, if at all (podPidsLimit of its kubelet)"
    elif facts.pids is None or facts.pids > bounds.pids:
        yield f"processes are not bounded to {bounds.pids}"
    if facts.cpus is None or facts.cpus > bounds.cpus:
        yield f"processor time is not bounded to {bounds.cpus:g} cores"
    if facts.files is None or facts.files > bounds.files:
        yield f"open files are not bounded to {bounds.files}"
