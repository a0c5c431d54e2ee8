"""The engine, its image and a Sandbox in it: what their answers mean; pure."""

from collections.abc import Iterator, Mapping

from orchestrator.backends.engine_info import EngineInfo, choose_link, require_runtime
from orchestrator.doctor.finding import Area, Finding, of_error, ok, problem, warning
from orchestrator.errors import BackendUnavailableError
from orchestrator.explain.gaps import NO_ISOLATION, gaps
from orchestrator.sandbox.api import LinkKind
from orchestrator.units import amount
from orchestrator.wire.facts import Facts
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.grant_record import ResourceLimits

_LOOPBACK = "lo"
_OTHER_KERNEL = "use an engine whose kernel supports it; `perstack-orch explain EXPERT` shows what remains enforced"


class NetworkProbe(Frozen):
    """What a program inside a Sandbox found: the network devices, and the result of each way to the outside.

    `direct` is the error of a direct connection, None if it was made. `proxied` is the answer of the egress proxy.
    """

    devices: tuple[str, ...]
    direct: str | None
    proxied: str


def origin_of(environ: Mapping[str, str]) -> str:
    """Return what decides the address of a Docker engine."""
    named = next((name for name in ("DOCKER_HOST", "DOCKER_CONTEXT") if environ.get(name)), None)
    return f"named by {named}" if named else "Docker's active context or a usual socket"


def engine_findings(
    info: EngineInfo, origin: str, runtime_class: str | None, user_namespaces: int | None = None
) -> Iterator[Finding]:
    """Yield what is to say about an engine that answered.

    `user_namespaces` is how many its kernel allows, None if this is not known; only rootless engines need them.
    """
    if not info.isolates:
        yield warning(Area.ENGINE, "isolation", NO_ISOLATION, "use --backend docker")
        return
    where = f" at {info.address}, {origin}" if info.address else ""
    yield ok(Area.ENGINE, "engine", f"{info.name}{where}")
    machine = [
        *([f"kernel {info.kernel}"] if info.kernel else []),
        *([f"control groups version {info.cgroups}"] if info.cgroups else []),
        *([] if user_namespaces is None else [f"{user_namespaces or 'no'} user namespaces"]),
        *([f"rootless, of user {info.owner}"] if info.owner is not None else []),
    ]
    if machine:
        yield ok(Area.ENGINE, "machine", ", ".join(machine))
    try:
        require_runtime(runtime_class, info)
    except BackendUnavailableError as error:
        yield of_error(Area.ENGINE, "runtimes", error)
    else:
        yield ok(Area.ENGINE, "runtimes", f"for --runtime-class: {', '.join(info.runtimes) or 'none'}")


def link_findings(
    info: EngineInfo, wanted: LinkKind, runtime_class: str | None, *, is_tried: bool
) -> Iterator[Finding]:
    """Yield how Sandboxes of a job reach their broker; `wanted` is what `--link` demands.

    `is_tried` is whether a container has shown that the engine sees the workspace, or does not.
    """
    if (choice := choose_link(wanted, runtime_class, info)) is not None:
        is_guess = not is_tried and wanted is LinkKind.AUTO and choice.link is LinkKind.SOCKET
        later = ", unless the first job finds that the engine does not see its workspace" if is_guess else ""
        found = f"Sandboxes reach their broker by {choice.link}: {choice.reason}{later}"
        yield ok(Area.ENGINE, "link", found)


def image_finding(image: str, *, is_present: bool, is_own: bool, registry: str | None) -> Finding:
    """Return whether the engine has `image`.

    `is_own` is whether the image belongs to this version: then the first job provides it, from `registry` if set.
    """
    if is_present:
        return ok(Area.IMAGE, "image", f"{image} is present")
    if not is_own:
        return problem(
            Area.IMAGE, "image", f"no image {image} exists at the engine", "pull or build it, or leave out --image"
        )
    how, command = ("builds it", "build") if registry is None else (f"pulls it from {registry}", "pull")
    found = f"{image} is not there yet: the first job {how}, which may take minutes; no Sandbox was checked"
    return warning(Area.IMAGE, "image", found, f"perstack-orch image {command}")


def sandbox_findings(info: EngineInfo, facts: Facts, limits: ResourceLimits) -> Iterator[Finding]:
    """Yield what the kernel and the engine enforce in a Sandbox, and each thing that they do not."""
    enforced = [
        f"Landlock ABI {facts.landlock}",
        *(["seccomp"] if facts.seccomp or facts.filtered else []),
        *(["AppArmor or SELinux"] if facts.profile else []),
        *([f"memory {amount(facts.memory)}"] if facts.memory is not None else []),
        *([f"{facts.pids} processes"] if facts.pids is not None else []),
        f"user {facts.uid}",
    ]
    yield ok(Area.SANDBOX, "start", f"a Sandbox starts and reaches its broker: {', '.join(enforced)}")
    for sentence in gaps(info, facts, limits, None):
        if sentence != NO_ISOLATION:
            yield warning(Area.SANDBOX, "kernel", sentence, _OTHER_KERNEL)


def network_findings(found: NetworkProbe, host: str) -> Iterator[Finding]:
    """Yield whether a Sandbox is closed, and whether its skills reach `host` through the egress proxy."""
    outside = [device for device in found.devices if device != _LOOPBACK]
    if found.direct is None or outside:
        how = "it connected to the outside" if found.direct is None else f"it has the network devices {outside}"
        yield problem(
            Area.NETWORK, "closed", f"a Sandbox has a network: {how}", "report this, and run no Experts here meanwhile"
        )
    else:
        yield ok(Area.NETWORK, "closed", f"a Sandbox has no network; its skills cannot connect ({found.direct})")
    if found.proxied.startswith("2"):
        yield ok(Area.NETWORK, "egress", f"a skill reaches {host} through the egress proxy, and nothing else")
    else:
        yield warning(
            Area.NETWORK,
            "egress",
            f"a skill that declares {host} does not reach it ({found.proxied})",
            "check the network and the name servers of this machine; Experts without such skills need nothing",
        )
