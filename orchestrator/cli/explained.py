"""An explanation as lines for a person. Pure."""

from collections.abc import Iterator, Mapping

from orchestrator.explanation import Explanation, Host, Part, Place
from orchestrator.history.grants import bounds_line, listed
from orchestrator.units import amount

_LABEL = 12
_STEP = "  "


def lines(told: Explanation) -> Iterator[str]:
    """Write the place, the tree of Experts, and what does not hold."""
    yield f"{told.expert_key} on {told.engine or told.backend}"
    yield from (f"{_STEP}{label.ljust(_LABEL)}{text}" for label, text in _place(told))
    yield "Experts"
    yield from _tree(told.expert_key, {part.key: part for part in told.experts}, _STEP, set())
    yield "Not enforced here" if told.unenforced else "All of this is enforced here"
    yield from (f"{_STEP}{sentence}" for sentence in told.unenforced)


def _place(told: Explanation) -> Iterator[tuple[str, str]]:
    work, egress = told.work, told.egress
    if told.image is not None:
        yield "image", told.image + (f", run by {told.runtime_class}" if told.runtime_class else "")
    inside = "" if told.user_inside == told.user else f", who is {told.user_inside} inside"
    yield "user", f"{told.user}{inside}"
    if told.image is not None:
        yield "network", f"{told.network}; skills reach the hosts below through a proxy outside, on port 443"
        yield "bounds", bounds_line(told.bounds)
    else:
        yield "network", told.network
    most = f"{egress.connections} connections at once, {egress.connections_in_all} in a Run"
    each = f"{egress.idle_seconds:g} s idle, {egress.connection_seconds:g} s in all"
    yield "each skill", f"{most}, {amount(egress.sent)} out, {amount(egress.received)} in; {each}"
    key = f"; {work.missing_key}" if work.missing_key else ""
    yield "model", f"{work.model} of {work.provider}, called outside{key}"
    times = f"{_seconds(work.run_seconds)} for a Run, {_seconds(work.job_seconds)} for all"
    delegates = f"delegates {work.max_depth} deep, {work.max_fan_out} for one reply"
    yield "job", f"{work.max_steps} steps, {_seconds(work.generation_seconds)} for a model call, {times}; {delegates}"
    width = max((len(mount.path) for mount in told.mounts), default=0)
    for number, mount in enumerate(told.mounts):
        yield "" if number else "sees", f"{mount.path.ljust(width)}  {mount.mode.ljust(10)}  {mount.source}"


def _tree(key: str, parts: Mapping[str, Part], indent: str, seen: set[str]) -> Iterator[str]:
    if key in seen:
        yield f"{indent}{key}: as above"
        return
    seen.add(key)
    part = parts[key]
    yield f"{indent}{key}"
    width = max(len(place.name) for place in part.places)
    for place in part.places:
        yield f"{indent}{_STEP}{place.name.ljust(width)}  {_reach(place)}"
    for delegate in part.delegates:
        yield from _tree(delegate, parts, indent + _STEP, seen)


def _reach(place: Place) -> str:
    variables = listed(f"{name} (no value)" if name in place.missing else name for name in place.env)
    told = f"variables {variables}; hosts {listed(map(_host, place.hosts))}"
    if place.package is not None:
        told += f"; package {place.package}"
    return f"remote; {told}" if place.remote else told


def _host(host: Host) -> str:
    return host.name if host.allowed_by == "declared" else f"{host.name} ({host.allowed_by})"


def _seconds(seconds: float | None) -> str:
    return "any time" if seconds is None else f"{seconds:g} s"
