"""What a check found; pure values, which the command line prints."""

from collections.abc import Iterable
from enum import StrEnum

from orchestrator.errors import OrchestratorError
from orchestrator.wire.frozen import Frozen


class Area(StrEnum):
    """The parts that a job needs, in the order in which they are printed."""

    ENGINE = "engine"
    IMAGE = "image"
    SANDBOX = "sandbox"
    NETWORK = "network"
    MODEL = "model"
    WORKSPACE = "workspace"
    STORE = "store"
    CLUSTER = "cluster"


class Level(StrEnum):
    """How a check ended. A job can run with a warning, and cannot with a problem."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Frozen):
    """One check: what it was about, what was found, and what to do about it; an `ok` one needs no remedy."""

    area: Area
    check: str
    level: Level
    found: str
    remedy: str | None = None


class Diagnosis(Frozen):
    """All that was found. `can_run` is whether a job could run: no finding is a problem."""

    version: str
    can_run: bool
    findings: tuple[Finding, ...]


def diagnose(version: str, findings: Iterable[Finding]) -> Diagnosis:
    """Order the findings by area, and decide whether a job could run."""
    order = list(Area)
    ordered = tuple(sorted(findings, key=lambda each: order.index(each.area)))
    return Diagnosis(
        version=version, can_run=all(each.level is not Level.PROBLEM for each in ordered), findings=ordered
    )


def ok(area: Area, check: str, found: str) -> Finding:
    """Return a finding without fault."""
    return Finding(area=area, check=check, level=Level.OK, found=found)


def warning(area: Area, check: str, found: str, remedy: str) -> Finding:
    """Return a finding with which a job can run."""
    return Finding(area=area, check=check, level=Level.WARNING, found=found, remedy=remedy)


def problem(area: Area, check: str, found: str, remedy: str) -> Finding:
    """Return a finding with which no job can run."""
    return Finding(area=area, check=check, level=Level.PROBLEM, found=found, remedy=remedy)


def of_error(area: Area, check: str, error: OrchestratorError, *, level: Level = Level.PROBLEM) -> Finding:
    """Return an error as a finding. Each error ends with what to do next, after its last `; `, else its last `: `."""
    text = str(error)
    separator = "; " if "; " in text else ": "
    found, _, remedy = text.rpartition(separator)
    if not found:
        found, remedy = text, "correct what the message names"
    return Finding(area=area, check=check, level=level, found=found, remedy=remedy)
