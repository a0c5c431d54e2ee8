"""Sandboxes as plain processes, without isolation. They need pidfds and /proc, so nothing here loads elsewhere."""

import sys

from orchestrator.errors import ConfigError

if sys.platform != "linux":
    message = f"--backend process needs Linux, and this system is {sys.platform}: use --backend docker"
    raise ConfigError(message)
