"""The stand-in for another engine (`dev/engines`) that these tests run on, and which tests run there.

It needs the standard library only, since `dev/tests` imports it.
"""

import os

KINDS = frozenset({"desktop", "remote", "podman", "gvisor", "vm"})
"""Markers of tests that need a stand-in of this kind."""

STAND_INS = ("desktop", "remote", "remote-ssh", "podman", "gvisor", "vm")
"""Those that `make engines` tests. It leaves out `podman-rootless`, whose tests another user must run."""

VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
"""What leads to an engine, and to each stand-in."""

NAMED = "PERSTACK_TEST_ENGINE"
"""The variable with the stand-in's name; unset on the engine of this machine."""

_EVERYWHERE = frozenset({"everywhere", "on_engines"})
"""Markers of tests that must hold on every engine."""

_NOT_REMOTE = frozenset({"internet", "mounted"})
"""Markers of tests that an engine elsewhere cannot run."""


def kind() -> str | None:
    """Return the kind of the stand-in in use: `remote` for `remote-ssh`; None on the engine of this machine."""
    name = os.environ.get(NAMED)
    return None if name is None else name.partition("-")[0]


def takes(kind: str, markers: frozenset[str], *, attacks: bool) -> bool:
    """Whether a stand-in of this kind runs a test with these markers: its own, and what must hold on every engine."""
    if named := markers & KINDS:
        return kind in named
    if kind == "remote" and markers & _NOT_REMOTE:
        return False
    return "docker" in markers and (attacks or not markers.isdisjoint(_EVERYWHERE))
