"""The state directories of Sandboxes that mount parts of a claim, and the instance that owns them."""

from pathlib import Path

import pytest

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.disk.directory import unwritable_remedy
from orchestrator.errors import BackendError, ConfigError
from orchestrator.plan.make_job import instance_of, state_root_of
from orchestrator.pool.state_directories import directories, directory_of, job_directory
from orchestrator.sandbox.api import STATE_ROOT, User
from orchestrator.workspace.mount import ensure
from orchestrator.workspace.workspace import Workspace


def setting(root: Path, claim: str = "u1", namespace: str = "agents") -> ClusterSetting:
    """Describe a cluster."""
    return ClusterSetting(namespace, Claim(claim, root), ())


def test_a_store_on_a_claim_is_the_same_wherever_that_is_mounted(tmp_path: Path) -> None:
    """Coordinators of different users, all with their claim at one path, do not remove each other's Sandboxes."""
    here, there = tmp_path / "here", tmp_path / "there"
    one = instance_of(here / "records", setting(here))
    assert instance_of(there / "records", setting(there)) == one
    others = {
        instance_of(here / "records"),
        instance_of(here / "records", setting(here, claim="u2")),
        instance_of(here / "records", setting(here, namespace="other")),
        instance_of(here / "more", setting(here)),
        instance_of(tmp_path / "records", setting(here)),
    }
    assert len(others | {one}) == 6


def test_state_directories_are_on_the_claim(tmp_path: Path) -> None:
    """On a claim they are where a Pod can mount them; elsewhere they have a short path, as sockets need."""
    assert state_root_of(None) == STATE_ROOT
    root = state_root_of(setting(tmp_path))
    with job_directory("i", "j", root=root) as made:
        assert made == directory_of("i", "j", root)
        assert made.parent == tmp_path / "state"
        assert directories("i", root) == [made]
        assert (root.stat().st_mode & 0o777, made.stat().st_mode & 0o777) == (0o711, 0o711)
    assert directories("i", root) == []


def test_a_volume_that_nothing_can_be_made_on_is_refused() -> None:
    """The message names the required owner of the root, and the remedy."""
    with (
        pytest.raises(BackendError, match="must own the root of the volume at /proc: use a StorageClass that honors"),
        job_directory("i", "j", root=Path("/proc/state")),
    ):
        pass


def test_a_workspace_that_cannot_be_made_there_has_the_same_remedy() -> None:
    """The remedy does not suggest another workspace, which a cluster does not allow."""
    workspace = Workspace(Path("/proc/ws"), User(65532, 65532), absent=True, remedy=unwritable_remedy(Path("/proc")))
    with pytest.raises(
        ConfigError, match=r"workspace /proc/ws cannot be made: .*; user .*, who runs this command, must own the root"
    ):
        ensure(workspace)
