"""Which tests leave a named cluster alone."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ATTACKS = ("tests/e2e/attacks/test_submitted.py", "tests/e2e/test_hostile_output.py")


def test_a_cluster_that_was_named_is_never_attacked(tmp_path: Path) -> None:
    """Each attack on a cluster is skipped and reported, even if all tiers are required."""
    named = {"KUBECONFIG": str(tmp_path / "named"), "PERSTACK_TEST_REQUIRE": "docker,helm,internet,kubernetes"}
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "kubernetes", *ATTACKS)
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | named, capture_output=True, text=True, timeout=100, check=False
    )
    *_, left_out, last = done.stdout.splitlines()
    assert "A CLUSTER THAT WAS NAMED IS NEVER ATTACKED" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    assert "passed" not in last + left_out
