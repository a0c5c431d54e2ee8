"""How a Sandbox is, read purely from its Pod, its Job and the events about them (reliability H17, H20 to H25)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from orchestrator.sandbox import Exit, Reason

Object = Mapping[str, Any]

_HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}
_NO_IMAGE = {*_HOPELESS, "ErrImagePull", "ImagePullBackOff"}
_DISRUPTED = {"Evicted", "Terminated", "NodeShutdown", "Preempting", "NodeLost"}
_TOLD = {"FailedCreate", "FailedMount", "FailedAttachVolume", "FailedScheduling", "FailedCreatePodSandBox", "Failed"}
_DENIED = ("violates PodSecurity", "admission webhook", "ValidatingAdmissionPolicy", "denied request")
_SIGKILL = 137


class Hope(Enum):
    """Whether who waits for a start should go on."""

    NONE = auto()
    """It will never start."""
    SOME = auto()
    """It may, for a while."""
    HELD = auto()
    """A queue holds it back on purpose, for as long as that takes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a Sandbox does not run yet, in the cluster's own words; `image` says that its image is the trouble."""

    hope: Hope
    message: str
    image: bool = False


def has_started(pod: Object) -> bool:
    """Whether its program runs, or has."""
    return any(kind in container_state(pod) for kind in ("running", "terminated")) or has_ended(pod)


def has_ended(pod: Object) -> bool:
    """Whether nothing of it runs any more."""
    return "terminated" in container_state(pod) or _status(pod).get("phase") in {"Succeeded", "Failed"}


def is_leaving(pod: Object) -> bool:
    """Whether somebody, or the cluster itself, has asked for its end."""
    return "deletionTimestamp" in pod["metadata"]


def has_failed(job: Object) -> bool:
    """Whether a Job makes no further Pods."""
    return any(each["type"] in {"Failed", "FailureTarget", "Complete"} for each in _conditions(job))


def container_state(pod: Object) -> Object:
    """The state of its only container that matters; empty where the kubelet has not told any."""
    statuses: Sequence[Object] = _status(pod).get("containerStatuses") or ()
    return dict(statuses[0].get("state") or {}) if statuses else {}


def waiting(pod: Object | None, job: Object | None, events: Sequence[Object]) -> Waiting:
    """Say what a Sandbox waits for. Without a Pod its Job, and the events about it, say why there is none."""
    if pod is None:
        return _without_pod(job, events)
    if (pod.get("spec") or {}).get("schedulingGates"):
        return Waiting(Hope.HELD, "a scheduling gate of the cluster holds it back")
    waits: Object = container_state(pod).get("waiting") or {}
    reason, message = waits.get("reason", ""), waits.get("message", "")
    if reason in _NO_IMAGE:
        hope = Hope.NONE if reason in _HOPELESS else Hope.SOME
        return Waiting(hope, f"{reason}: {message}", image=True)
    told = _unscheduled(pod) or _newest(events) or f"{reason}: {message}".strip(": ")
    return Waiting(Hope.SOME, told or "its node has not answered for it")


def exit_of(pod: Object | None, job: Object | None, *, leaving: bool, stderr: str = "") -> Exit | None:
    """Read how a Sandbox ended, from the last that was seen of its Pod and from its Job; None where nobody can say.

    `leaving` says that we deleted it. An exit code alone tells little: 137 is any SIGKILL, and a kill for memory may
    show as 0, where a child was hit.
    """
    ended: Object = {} if pod is None else container_state(pod).get("terminated") or {}
    code = ended.get("exitCode")
    why, said = ended.get("reason", ""), ended.get("message", "")
    if why == "OOMKilled":
        return Exit(code, Reason.OUT_OF_MEMORY, stderr)
    if leaving and (code is not None or pod is None):
        return Exit(code, Reason.COMPLETED if code == 0 else Reason.CANCELLED, stderr)
    by_platform = _of_platform(pod, job, code)
    if by_platform is not None:
        return by_platform
    if code is None or why == "ContainerStatusUnknown":
        return None
    if code == _SIGKILL:
        return Exit(code, Reason.LOST, "its container was killed from outside")
    return Exit(code, Reason.COMPLETED if code == 0 else Reason.ERROR, stderr or said)


def _of_platform(pod: Object | None, job: Object | None, code: int | None) -> Exit | None:
    status = {} if pod is None else _status(pod)
    reason, message = status.get("reason", ""), status.get("message", "")
    disrupted = next((each for each in _conditions(pod or {}) if _is(each, "DisruptionTarget")), None)
    if disrupted is None and reason == "Evicted" and container_state(pod or {}):
        # For what it did itself, which it would do again: it took more of a disk than its limit. Its code says nothing,
        # since the kubelet stopped it; its state may be from before it ran. One without any was refused by its node.
        return Exit(None, Reason.ERROR, message)
    if disrupted is not None or reason in _DISRUPTED:
        told: Object = disrupted or {}
        return Exit(code, Reason.EVICTED, message or f"{told.get('reason')}: {told.get('message')}")
    if reason == "DeadlineExceeded":
        return Exit(code, Reason.DEADLINE, message)
    if reason and code is None:
        # A node that could not take it after all: OutOfcpu, UnexpectedAdmissionError and their like.
        return Exit(code, Reason.LOST, f"{reason}: {message}")
    if code is None:
        return _of_job(job)
    return None


def _of_job(job: Object | None) -> Exit | None:
    failed = next((each for each in _conditions(job or {}) if each["type"] in {"Failed", "FailureTarget"}), None)
    match failed and failed.get("reason"):
        case "PodFailurePolicy":
            return Exit(None, Reason.EVICTED, str(failed and failed.get("message")))
        case "DeadlineExceeded":
            return Exit(None, Reason.DEADLINE, str(failed and failed.get("message")))
    return None


def _without_pod(job: Object | None, events: Sequence[Object]) -> Waiting:
    if job is not None and (job.get("spec") or {}).get("suspend"):
        return Waiting(Hope.HELD, "its Job is suspended; a queue will let it go on")
    told = _last_word(events, "FailedCreate")
    if told is None:
        return Waiting(Hope.SOME, "its Job has no Pod yet")
    return Waiting(Hope.NONE if any(word in told for word in _DENIED) else Hope.SOME, told)


def _unscheduled(pod: Object) -> str | None:
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return None


def _newest(events: Sequence[Object]) -> str | None:
    """What the newest event says that tells of trouble."""
    troubles = [each for each in events if each.get("reason") in _TOLD]
    return None if not troubles else f"{troubles[-1]['reason']}: {troubles[-1].get('message', '')}"


def _last_word(events: Sequence[Object], reason: str) -> str | None:
    said = [str(each.get("message", "")) for each in events if each.get("reason") == reason]
    return said[-1] if said else None


def _is(condition: Object, kind: str) -> bool:
    return bool(condition["type"] == kind and condition["status"] == "True")


def _conditions(thing: Object) -> Sequence[Object]:
    return _status(thing).get("conditions") or ()


def _status(thing: Object) -> Object:
    status: Object = thing.get("status") or {}
    return status
