"""What a Run is granted, as it is recorded and explained: names, never values."""

from collections.abc import Mapping

from orchestrator.wire.frozen import Frozen


class Reach(Frozen):
    """What one skill, or `exec`, is given: names of variables, and hosts, among them patterns like `*.example.com`."""

    env: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Bounds(Frozen):
    """What one Sandbox may use: bytes of memory and of each tmpfs, cores, processes, open files of each.

    `pids` is None where a node alone says how many processes there may be.
    """

    memory: int
    tmp: int
    cpus: float
    pids: int | None = None
    files: int


class Granted(Frozen):
    """What one Run may read, reach and use.

    `skills` is by name. `user` is UID:GID. Of the workspace, `read_only` files may not be changed and `hidden` ones not
    be seen. `run_seconds` bounds an attempt; no bound is None.
    """

    exec: Reach
    skills: Mapping[str, Reach]
    delegates: tuple[str, ...] = ()
    image: str
    user: str
    read_only: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    bounds: Bounds
    run_seconds: float | None = None
