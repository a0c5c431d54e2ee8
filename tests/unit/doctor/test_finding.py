"""What a check found, as values."""

import json

import pytest

from orchestrator.doctor.finding import Area, Level, diagnose, of_error, ok, problem, warning
from orchestrator.errors import BackendUnavailableError, ConfigError, OrchestratorError


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (
            BackendUnavailableError(
                "no Docker engine at unix:///x: start it, or install it (https://docs.docker.com/)"
            ),
            "no Docker engine at unix:///x",
            "start it, or install it (https://docs.docker.com/)",
        ),
        (
            ConfigError("workspace w cannot be used: No such file; make the directory or name another --workspace"),
            "workspace w cannot be used: No such file",
            "make the directory or name another --workspace",
        ),
        (OrchestratorError("it broke"), "it broke", "correct what the message names"),
    ],
)
def test_an_error_is_split_into_what_failed_and_what_to_do(error: OrchestratorError, found: str, remedy: str) -> None:
    """The last part of an error is its remedy; an error without one still gets one."""
    assert of_error(Area.ENGINE, "engine", error) == problem(Area.ENGINE, "engine", found, remedy)


def test_a_job_can_run_unless_there_is_a_problem() -> None:
    """Warnings do not count; findings are ordered by area, and those of one area keep their order."""
    fine, late, first = ok(Area.ENGINE, "a", "x"), warning(Area.STORE, "b", "x", "y"), ok(Area.ENGINE, "b", "x")
    wrong = problem(Area.MODEL, "key", "x", "y")
    assert diagnose("1", [late, fine, first]).can_run
    found = diagnose("1", [late, wrong, fine, first])
    assert (found.can_run, found.findings) == (False, (fine, first, wrong, late))


def test_the_json_has_the_documented_shape() -> None:
    """docs/doctor.md: programs read these names; an `ok` finding has no remedy."""
    found = diagnose("1.2.3", [ok(Area.ENGINE, "engine", "x"), problem(Area.MODEL, "key", "y", "z")])
    assert json.loads(found.to_json()) == {
        "version": "1.2.3",
        "canRun": False,
        "findings": [
            {"area": "engine", "check": "engine", "level": "ok", "found": "x"},
            {"area": "model", "check": "key", "level": "problem", "found": "y", "remedy": "z"},
        ],
    }
    assert [each.value for each in Level] == ["ok", "warning", "problem"]
    assert [each.value for each in Area] == [
        "engine",
        "image",
        "sandbox",
        "network",
        "model",
        "workspace",
        "store",
        "cluster",
    ]
