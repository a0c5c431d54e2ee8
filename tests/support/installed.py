"""A machine with another release of Debian, for tests of an installed package; `dev/installed` prepares it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support import registry

USER = 1000
"""The user alice, in the root file system."""

_SOCKET = "/var/run/docker.sock"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_FROM_HERE = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
"""Where this machine finds packages."""

_HOME = "/home/alice"

_ENTER = """
root=$1 groups=$2 home=$3
shift 3
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount --bind "$home" "$root/home/alice"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
if [ "$groups" != alice ]; then
  touch "$root/run/docker.sock"
  mount --bind /var/run/docker.sock "$root/run/docker.sock"
fi
exec chroot --userspec=alice:alice --groups="$groups" "$root" env -i --chdir="$HOME" HOME="$HOME" "$@"
"""


def directory() -> Path:
    """Where the root file system is."""
    return Path(os.environ.get("PERSTACK_INSTALLED_DIR") or "/var/lib/perstack-installed") / "root"


def possible() -> bool:
    """Whether tests can change into the root file system, and run a registry of images."""
    return os.geteuid() == 0 and (directory() / "ready").exists() and registry.installed()


@dataclass(frozen=True, slots=True)
class Machine:
    """The root file system, with alice's home, which is another directory of this machine.

    An engine of this machine sees neither her files under the names that she has for them, nor sockets among them.
    """

    home: Path

    def run(self, *command: str, seconds: int = 60, engine: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command as alice in her home; with `engine` this machine's engine is there, and she may use it."""
        groups = str(Path(_SOCKET).stat().st_gid) if engine else "alice"
        variables = {name: os.environ[name] for name in _FROM_HERE if name in os.environ} | {
            "PATH": f"{_HOME}/venv/bin:{_HOME}/.local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PIP_CERT": _BUNDLE,
            "SSL_CERT_FILE": _BUNDLE,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        settings = [f"{name}={value}" for name, value in variables.items()]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _ENTER, "sh"]
        return subprocess.run(
            [*enter, str(directory()), groups, str(self.home), *settings, *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": _HOME},
        )
