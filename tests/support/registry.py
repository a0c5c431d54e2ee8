"""A registry of images on loopback: Debian's docker-registry."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

USER, PASSWORD = "reader", "sesame"
_HASHED = "$2b$12$8J21EnkmHDHBEnVX/yeKyOJgGE9X6OTdaZbsPKnzVqRqz.dhyulIC"
_SECONDS = 30


def installed() -> bool:
    """Whether this machine has the program."""
    return shutil.which("docker-registry") is not None


@dataclass(frozen=True, slots=True)
class Registry:
    """Where it is, and the directory of its layers."""

    host: str
    directory: Path

    def damage(self) -> None:
        """Change a byte of each layer and manifest that it stores."""
        for blob in self.directory.glob("docker/registry/v2/blobs/sha256/*/*/data"):
            content = bytearray(blob.read_bytes())
            content[len(content) // 2] ^= 1
            blob.write_bytes(content)


@contextmanager
def registry(*, closed: bool = False) -> Iterator[Registry]:
    """Run a registry, with `closed` only for USER and PASSWORD; it is gone when the block is left."""
    with tempfile.TemporaryDirectory() as above, closing(socket.create_server(("127.0.0.1", 0))) as free:
        host = "127.0.0.1:{1}".format(*free.getsockname())
        free.close()
        directory = Path(above)
        (directory / "config.yml").write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {above}}}}}\n")
        environ = os.environ | {"REGISTRY_HTTP_ADDR": host, "OTEL_TRACES_EXPORTER": "none"}
        if closed:
            (directory / "users").write_text(f"{USER}:{_HASHED}\n")
            environ |= {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_PATH": f"{above}/users"}
            environ |= {"REGISTRY_AUTH_HTPASSWD_REALM": "tests"}
        command = ["docker-registry", "serve", f"{above}/config.yml"]
        with (
            (directory / "log").open("wb") as log,
            subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process,
        ):
            try:
                _await_answer(host)
                yield Registry(host, directory)
            finally:
                process.terminate()


def _await_answer(host: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            urlopen(f"http://{host}/v2/", timeout=5).close()
        except HTTPError:
            return  # it wants a login
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
