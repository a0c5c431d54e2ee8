"""The command that goes on with a job, as a person copies it."""

import pytest

from orchestrator.cli.again import again, whereabouts
from orchestrator.cli.options import RunOptions

RESUME = ("resume", "j")


@pytest.mark.parametrize(
    ("options", "environ", "command", "expected"),
    [
        (RunOptions(), {}, RESUME, "perstack-orch resume j"),
        (
            RunOptions(storage="my store", backend="process", verbose=True, run_seconds=1.5),
            {},
            RESUME,
            "perstack-orch resume --storage 'my store' --backend process --verbose --run-timeout 1.5 j",
        ),
        (
            RunOptions(env=("A", "B"), reasoning_budget="high", namespace="n"),
            {},
            RESUME,
            "perstack-orch resume --namespace n --reasoning-budget high --env A --env B j",
        ),
        (
            RunOptions(image="mine:1", storage="s"),
            {"PERSTACK_RUNTIME_IMAGE": "mine:1"},
            RESUME,
            "perstack-orch resume --storage s j",
        ),
        (
            RunOptions(max_steps=2, timeout_ms=9, continue_latest=True, job_id="j", expert_key="one", query="go"),
            {},
            ("run", "--continue-job", "j", "--max-steps", "4", "one", "Go on."),
            "perstack-orch run --timeout 9 --continue-job j --max-steps 4 one 'Go on.'",
        ),
    ],
)
def test_what_was_said_is_said_again(
    options: RunOptions, environ: dict[str, str], command: tuple[str, ...], expected: str
) -> None:
    """Options as they were given, quoted for a shell; not what concerned one turn, nor what is said anyway."""
    assert again(options, environ, *command) == expected


def test_where_a_job_of_a_cluster_is() -> None:
    """Whose it is, and the namespace and installation if they were named; not what the environment says."""
    options = RunOptions(namespace="n", installation="i", env=("A",), storage="s")
    assert whereabouts(options, "u 1") == ("--namespace", "n", "--installation", "i", "--user", "u 1")
    assert whereabouts(options, "u", {"PERSTACK_USER": "u"}) == ("--namespace", "n", "--installation", "i")
    assert whereabouts(RunOptions(), None) == ()
