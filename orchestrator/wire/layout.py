"""Paths inside a Sandbox's container: the host mounts them, the runtime uses them."""

from pathlib import PurePosixPath

WORKSPACE = PurePosixPath("/workspace")
"""The user's files."""

STATE = PurePosixPath("/run/perstack")
"""The Sandbox's state directory: the spool, and the socket directory of the broker."""

SOCKET_DIRECTORY_NAME = "gate"
"""The socket directory inside the state directory; closed after the Sandbox has connected."""

SOCKET_NAME = "in/broker.sock"
"""The broker's socket, relative to the socket directory. Processes that entered before keep access to `in`."""

SPOOL_NAME = "events.jsonl"
"""The event spool in the state directory."""

PACKAGES = PurePosixPath("/packages")
"""Installed packages of skills."""

SHARED = PurePosixPath("/tmp")  # noqa: S108 - a tmpfs of the container's own
"""In memory, for all commands. A directory of one skill is not below it: a grant covers everything below a path."""

SKILLS = PurePosixPath("/run/skills")
"""In memory: a separate directory for each skill, which commands cannot reach."""

TOKEN = PurePosixPath("/run/secrets/perstack.ai/token")
"""The token by which a Sandbox authenticates to a broker that it reaches over a network."""

MARK = PurePosixPath("/run/mark")
"""The state directory on the host, read-only, where a stream is the link. It has only the mirror of the spool. It shows
whether inode numbers inside are those outside."""

STREAM = "-"
"""In place of a broker's address: the broker is at the other end of stdin and stdout."""

STDERR = STATE / "stderr"
"""The runtime's stderr, where the container's log mixes it with stdout."""
