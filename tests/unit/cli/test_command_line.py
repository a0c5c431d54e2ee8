"""Commands that the user can copy to continue a job."""

import pytest

from orchestrator.cli.command_line import format_command, format_location
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
            RunOptions(user="u", backend="kubernetes", namespace="n", workspaces="w"),
            {},
            RESUME,
            "perstack-orch resume --namespace n --user u --workspaces w --backend kubernetes j",
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
            ("run", "--continue-job", "j", "--max-steps", "4", "one", "Go ahead."),
            "perstack-orch run --timeout 9 --continue-job j --max-steps 4 one 'Go ahead.'",
        ),
    ],
)
def test_the_command_repeats_the_options_of_the_job(
    options: RunOptions, environ: dict[str, str], command: tuple[str, ...], expected: str
) -> None:
    """Given options are quoted for a shell; those of one query, in the environment or in the command are left out."""
    assert format_command(options, environ, *command) == expected


def test_the_location_of_a_job_in_a_cluster() -> None:
    """User, namespace and installation are repeated if they were given, but not if the environment sets them."""
    options = RunOptions(namespace="n", installation="i", env=("A",), storage="s")
    assert format_location(options.with_(user="u 1")) == ("--namespace", "n", "--installation", "i", "--user", "u 1")
    assert format_location(options.with_(user="u"), {"PERSTACK_USER": "u"}) == (
        *("--namespace", "n", "--installation", "i"),
    )
    assert format_location(RunOptions()) == ()
