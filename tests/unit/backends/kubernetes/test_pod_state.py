from typing import Any

import pytest

from orchestrator.backends.kubernetes.pod_state import (
    PendingStart,
    StartProspect,
    exit_of,
    has_ended,
    has_started,
    waiting,
)
from orchestrator.sandbox.api import Exit, Reason

Object = dict[str, Any]


def pod(*, state: Object | None = None, conditions: tuple[Object, ...] = (), **status: str) -> Object:
    """Return a Pod as in an answer of the API."""
    statuses = [] if state is None else [{"name": "runtime", "state": state}]
    return {"spec": {}, "status": {"containerStatuses": statuses, "conditions": list(conditions), **status}}


def ended(code: int, reason: str = "Error", message: str = "") -> Object:
    """Return a Pod whose container ended."""
    return pod(state={"terminated": {"exitCode": code, "reason": reason, "message": message}}, phase="Failed")


def job(kind: str, reason: str, message: str = "said") -> Object:
    """Return a Job with a condition."""
    return {"spec": {}, "status": {"conditions": [{"type": kind, "reason": reason, "message": message}]}}


def event(reason: str, message: str) -> Object:
    """Return an event."""
    return {"reason": reason, "message": message}


EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API"}


@pytest.mark.parametrize(
    ("seen", "of_job", "leaving", "expected"),
    [
        pytest.param(ended(0, "Completed"), None, False, Exit(0, Reason.COMPLETED, "stderr"), id="done"),
        pytest.param(ended(3), None, False, Exit(3, Reason.ERROR, "stderr"), id="error"),
        pytest.param(ended(143), None, False, Exit(143, Reason.ERROR, "stderr"), id="stopped from outside"),
        pytest.param(
            ended(137), None, False, Exit(137, Reason.LOST, "its container was killed from outside"), id="137"
        ),
        pytest.param(ended(137, "OOMKilled"), None, False, Exit(137, Reason.OUT_OF_MEMORY, "stderr"), id="memory"),
        pytest.param(
            ended(0, "OOMKilled"), None, False, Exit(0, Reason.OUT_OF_MEMORY, "stderr"), id="a child's memory"
        ),
        pytest.param(ended(143), None, True, Exit(143, Reason.CANCELLED, "stderr"), id="stopped by us"),
        pytest.param(
            ended(0, "Completed"), None, True, Exit(0, Reason.COMPLETED, "stderr"), id="done before we stopped"
        ),
        pytest.param(None, None, True, Exit(None, Reason.CANCELLED, "stderr"), id="never there"),
        pytest.param(
            pod(state={"terminated": {"exitCode": 143}}, conditions=(EVICTED,)),
            None,
            False,
            Exit(143, Reason.EVICTED, "EvictionByEvictionAPI: Eviction API"),
            id="evicted",
        ),
        pytest.param(
            pod(phase="Failed", reason="Evicted", message="low on memory"),
            None,
            False,
            Exit(None, Reason.EVICTED, "low on memory"),
            id="evicted before it started",
        ),
        *(
            pytest.param(
                pod(
                    state={kind: {"exitCode": code, "reason": why}},
                    phase="Failed",
                    reason="Evicted",
                    message="tmp exceeds its limit",
                ),
                None,
                False,
                Exit(None, Reason.ERROR, "tmp exceeds its limit"),
                id=f"took too much of a disk, {what}",
            )
            for what, kind, code, why in (
                ("stopped", "terminated", 143, "Error"),
                ("not known how", "terminated", 137, "ContainerStatusUnknown"),
                ("stopping", "running", None, None),
                ("too soon to be seen running", "waiting", None, "ContainerCreating"),
            )
        ),
        pytest.param(
            pod(state={"running": {}}, conditions=(EVICTED,), reason="Evicted", message="the node was low on memory"),
            None,
            False,
            Exit(None, Reason.EVICTED, "the node was low on memory"),
            id="evicted for its node's sake",
        ),
        pytest.param(
            pod(phase="Failed", reason="DeadlineExceeded", message="too old"),
            None,
            False,
            Exit(None, Reason.DEADLINE, "too old"),
            id="deadline",
        ),
        pytest.param(
            pod(phase="Failed", reason="OutOfcpu", message="no room"),
            None,
            False,
            Exit(None, Reason.LOST, "OutOfcpu: no room"),
            id="its node did not take it",
        ),
        pytest.param(ended(137, "ContainerStatusUnknown"), None, False, None, id="unknown"),
        pytest.param(None, None, False, None, id="gone"),
        pytest.param(
            None, job("Failed", "PodFailurePolicy"), False, Exit(None, Reason.EVICTED, "said"), id="gone, evicted"
        ),
        pytest.param(
            None, job("Failed", "DeadlineExceeded"), False, Exit(None, Reason.DEADLINE, "said"), id="gone, late"
        ),
        pytest.param(None, job("Failed", "BackoffLimitExceeded"), False, None, id="gone, and the Job has no detail"),
        pytest.param(
            pod(state={"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}}),
            None,
            False,
            Exit(128, Reason.ERROR, "stderr"),
            id="could not be started",
        ),
    ],
)
def test_how_a_sandbox_ended(seen: Object | None, of_job: Object | None, leaving: bool, expected: Exit | None) -> None:  # noqa: FBT001 - parametrized
    """Conditions and reasons take precedence over the exit code, which alone shows little."""
    assert exit_of(seen, of_job, leaving=leaving, stderr="stderr") == expected


@pytest.mark.parametrize(
    ("seen", "of_job", "events", "expected"),
    [
        pytest.param(
            pod(state={"waiting": {"reason": "InvalidImageName", "message": "bad"}}),
            None,
            [],
            PendingStart(StartProspect.NONE, "InvalidImageName: bad", image=True),
            id="image name",
        ),
        pytest.param(
            pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}}),
            None,
            [event("Failed", "Error: ImagePullBackOff")],
            PendingStart(StartProspect.SOME, "ImagePullBackOff: back-off", image=True),
            id="image pull",
        ),
        pytest.param(
            pod(conditions=({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "cpu"},)),
            None,
            [],
            PendingStart(StartProspect.SOME, "Unschedulable: cpu"),
            id="no node",
        ),
        pytest.param(
            pod(state={"waiting": {"reason": "ContainerCreating"}}),
            None,
            [event("Pulled", "fine"), event("FailedMount", "no such volume")],
            PendingStart(StartProspect.SOME, "FailedMount: no such volume"),
            id="mount",
        ),
        pytest.param(
            pod(state={"waiting": {"reason": "ContainerCreating"}}),
            None,
            [],
            PendingStart(StartProspect.SOME, "ContainerCreating"),
            id="starting",
        ),
        pytest.param(
            pod(), None, [], PendingStart(StartProspect.SOME, "its node has not reported its state"), id="nothing yet"
        ),
        pytest.param(
            {"spec": {"schedulingGates": [{"name": "queue"}]}, "status": {}},
            None,
            [],
            PendingStart(StartProspect.HELD, "a scheduling gate of the cluster holds it back"),
            id="gated",
        ),
        pytest.param(
            None,
            {"spec": {"suspend": True}, "status": {}},
            [],
            PendingStart(StartProspect.HELD, "its Job is suspended; a queue will resume it"),
            id="queued",
        ),
        pytest.param(
            None,
            None,
            [event("FailedCreate", "exceeded quota: q, requested: pods=1")],
            PendingStart(StartProspect.SOME, "exceeded quota: q, requested: pods=1"),
            id="quota",
        ),
        pytest.param(
            None,
            None,
            [event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"')],
            PendingStart(StartProspect.NONE, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
            id="denied",
        ),
        pytest.param(None, None, [], PendingStart(StartProspect.SOME, "its Job has no Pod yet"), id="no Pod yet"),
    ],
)
def test_why_a_sandbox_waits(
    seen: Object | None, of_job: Object | None, events: list[Object], expected: PendingStart
) -> None:
    """The cluster's own words are used; only what can never change has no hope, and a queue may hold it forever."""
    assert waiting(seen, of_job, events) == expected


def test_started_and_ended() -> None:
    """A container's state is known before its Pod's phase."""
    states: dict[str, Object] = {
        "waiting": pod(state={"waiting": {}}, phase="Pending"),
        "running": pod(state={"running": {}}, phase="Pending"),
        "terminated": pod(state={"terminated": {"exitCode": 0}}, phase="Running"),
        "failed": pod(phase="Failed"),
    }
    assert {name: (has_started(one), has_ended(one)) for name, one in states.items()} == {
        "waiting": (False, False),
        "running": (True, False),
        "terminated": (True, True),
        "failed": (True, True),
    }
