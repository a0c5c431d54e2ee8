"""A Sandbox's state, read from its Pod, its Job and the events about them; pure.

The ways that a Pod ends, and what each of them proves, begin at docs/reference/reliability.md#jobs-delete-pods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from orchestrator.sandbox.api import Exit, Reason

Object = Mapping[str, Any]

_HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}
_NO_IMAGE = {*_HOPELESS, "ErrImagePull", "ImagePullBackOff"}
_DISRUPTED = {"Evicted", "Terminated", "NodeShutdown", "Preempting", "NodeLost"}
_REASONS = {
    "FailedCreate",
    "FailedMount",
    "FailedAttachVolume",
    "FailedScheduling",
    "FailedCreatePodSandBox",
    "Failed",
}
_DENIED = ("violates PodSecurity", "admission webhook", "ValidatingAdmissionPolicy", "denied request")
_SIGKILL = 137


class StartProspect(Enum):
    """Whether to keep waiting for a start."""

    NONE = auto()
    """It will never start."""
    SOME = auto()
    """It may start, for a while."""
    HELD = auto()
    """A queue holds it on purpose, for any length of time."""


@dataclass(frozen=True, slots=True)
class PendingStart:
    """Why a Sandbox does not run yet, in the cluster's own words; `image` is true if its image is the cause."""

    prospect: StartProspect
    message: str
    image: bool = False


def has_started(pod: Object) -> bool:
    """Whether its program runs or has run."""
    return any(kind in container_state(pod) for kind in ("running", "terminated")) or has_ended(pod)


def has_ended(pod: Object) -> bool:
    """Whether nothing of it runs any longer."""
    return "terminated" in container_state(pod) or _status(pod).get("phase") in {"Succeeded", "Failed"}


def is_terminating(pod: Object) -> bool:
    """Whether its deletion was requested, by a client or by the cluster itself."""
    return "deletionTimestamp" in pod["metadata"]


def has_failed(job: Object) -> bool:
    """Whether a Job creates no more Pods."""
    return any(each["type"] in {"Failed", "FailureTarget", "Complete"} for each in _conditions(job))


def container_state(pod: Object) -> Object:
    """Return the state of its main container; empty if the kubelet has reported none."""
    statuses: Sequence[Object] = _status(pod).get("containerStatuses") or ()
    return dict(statuses[0].get("state") or {}) if statuses else {}


def waiting(pod: Object | None, job: Object | None, events: Sequence[Object]) -> PendingStart:
    """Return what a Sandbox waits for. Without a Pod, its Job and the events about it give the reason."""
    if pod is None:
        return _without_pod(job, events)
    if (pod.get("spec") or {}).get("schedulingGates"):
        return PendingStart(StartProspect.HELD, "a scheduling gate of the cluster holds it back")
    waits: Object = container_state(pod).get("waiting") or {}
    reason, message = waits.get("reason", ""), waits.get("message", "")
    if reason in _NO_IMAGE:
        hope = StartProspect.NONE if reason in _HOPELESS else StartProspect.SOME
        return PendingStart(hope, f"{reason}: {message}", image=True)
    reason_text = _unscheduled(pod) or _newest(events) or f"{reason}: {message}".strip(": ")
    return PendingStart(StartProspect.SOME, reason_text or "its node has not reported its state")


def exit_of(pod: Object | None, job: Object | None, *, leaving: bool, stderr: str = "") -> Exit | None:
    """Return how a Sandbox ended, from its Pod's last known state and from its Job; None if neither shows it.

    `leaving` means that we deleted it. An exit code alone shows little: 137 is any SIGKILL, and a kill for memory may
    show as 0 if it hit a child.
    """
    ended: Object = {} if pod is None else container_state(pod).get("terminated") or {}
    code = ended.get("exitCode")
    why, message = ended.get("reason", ""), ended.get("message", "")
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
    return Exit(code, Reason.COMPLETED if code == 0 else Reason.ERROR, stderr or message)


def _of_platform(pod: Object | None, job: Object | None, code: int | None) -> Exit | None:
    status = {} if pod is None else _status(pod)
    reason, message = status.get("reason", ""), status.get("message", "")
    disrupted = next((each for each in _conditions(pod or {}) if _is(each, "DisruptionTarget")), None)
    if disrupted is None and reason == "Evicted" and container_state(pod or {}):
        # Evicted because it used more disk than its limit; a retry would do the same. The exit code means nothing,
        # since the kubelet stopped it; its state may be from before it ran. Without any state, its node refused it.
        return Exit(None, Reason.ERROR, message)
    if disrupted is not None or reason in _DISRUPTED:
        disruption: Object = disrupted or {}
        return Exit(code, Reason.EVICTED, message or f"{disruption.get('reason')}: {disruption.get('message')}")
    if reason == "DeadlineExceeded":
        return Exit(code, Reason.DEADLINE, message)
    if reason and code is None:
        # The node could not take it after all: OutOfcpu, UnexpectedAdmissionError and similar.
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


def _without_pod(job: Object | None, events: Sequence[Object]) -> PendingStart:
    if job is not None and (job.get("spec") or {}).get("suspend"):
        return PendingStart(StartProspect.HELD, "its Job is suspended; a queue will resume it")
    denial = _last_message(events, "FailedCreate")
    if denial is None:
        return PendingStart(StartProspect.SOME, "its Job has no Pod yet")
    return PendingStart(StartProspect.NONE if any(word in denial for word in _DENIED) else StartProspect.SOME, denial)


def _unscheduled(pod: Object) -> str | None:
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return None


def _newest(events: Sequence[Object]) -> str | None:
    """Return the newest event that reports a problem."""
    troubles = [each for each in events if each.get("reason") in _REASONS]
    return None if not troubles else f"{troubles[-1]['reason']}: {troubles[-1].get('message', '')}"


def _last_message(events: Sequence[Object], reason: str) -> str | None:
    messages = [str(each.get("message", "")) for each in events if each.get("reason") == reason]
    return messages[-1] if messages else None


def _is(condition: Object, kind: str) -> bool:
    return bool(condition["type"] == kind and condition["status"] == "True")


def _conditions(thing: Object) -> Sequence[Object]:
    return _status(thing).get("conditions") or ()


def _status(thing: Object) -> Object:
    status: Object = thing.get("status") or {}
    return status
