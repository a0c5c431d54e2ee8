"""Whose claim is whose."""

from pathlib import Path

import pytest

from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting
from orchestrator.coordination.submission import claim_of, instance_on
from orchestrator.errors import ConfigError
from orchestrator.request import instance_of


def test_no_two_users_share_a_claim() -> None:
    """Neither by case, nor by what is cut or cleaned, nor with nobody's."""
    users = ("u1", "U1", "u-1", "u_1", "default", "perstack-default", "x" * 300, "x" * 301, "ü")
    names = {claim_of(user) for user in (None, *users)}
    assert len(names) == len(users) + 1
    assert claim_of(None) == "default"
    assert all(len(name) <= 253 and name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize("user", ["", "a\nb", "\ud800"])
def test_an_id_that_nobody_could_read_is_refused(user: str) -> None:
    """It could not be written beside the claim."""
    with pytest.raises(ConfigError, match="give the id of a user"):
        claim_of(user)


def test_a_laptop_knows_the_instance_that_a_coordinator_answers_for(tmp_path: Path) -> None:
    """Sandboxes are named alike from inside and outside."""
    setting = ClusterSetting("agents", Claim("c", tmp_path), ())
    assert instance_on("agents", "c") == instance_of(tmp_path / "records", setting)
