"""Which tests run on a stand-in for another engine."""

from collections.abc import Iterable

import pytest

from tests.support.stand_ins import NAMED, kind, takes


@pytest.mark.parametrize(
    ("markers", "attacks", "taken"),
    [
        ((), False, False),
        (("docker",), False, False),
        (("docker",), True, True),
        (("docker", "everywhere"), False, True),
        (("docker", "on_engines", "internet"), False, False),
        (("docker", "mounted"), True, False),
        # Plain processes and Pods do not use the engine.
        (("everywhere",), False, False),
        (("kubernetes", "everywhere"), True, False),
        # Its own, and those of others.
        (("docker", "remote"), False, True),
        (("docker", "remote", "vm"), False, True),
        (("docker", "vm", "everywhere"), True, False),
    ],
)
def test_what_a_remote_engine_runs(markers: Iterable[str], *, attacks: bool, taken: bool) -> None:
    """Its own tests, and those of containers that must hold on every engine."""
    assert takes("remote", frozenset(markers), attacks=attacks) is taken


def test_ways_to_one_engine_are_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests marked for a remote engine run over TLS and over ssh."""
    monkeypatch.delenv(NAMED, raising=False)
    assert kind() is None
    for name in ("remote", "remote-ssh"):
        monkeypatch.setenv(NAMED, name)
        assert kind() == "remote"
