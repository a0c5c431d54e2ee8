"""How an engine sees files of this machine: found with a container that is created and never started.

It binds a new directory with a file `token` next to the workspace. If the engine's archive API reads the file, files
cross; if it also reads `TOKEN`, the share takes other spellings for one name. The answer is remembered for the engine,
by its id and address, and the mount that the directory is on. Engines of one machine, and clones of a machine, may have
the same id: it comes from a key in a file (https://github.com/moby/moby/blob/v20.10.24/daemon/trustkey.go).
"""

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.aio import cleanup_after, in_thread, shielded
from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.sandbox import removed
from orchestrator.backends.docker.volumes import HelperContainer
from orchestrator.disk.caller import state_of_caller
from orchestrator.disk.whole_file import write_atomically
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import Share, Sharing
from orchestrator.units import now

_TARGET = "/probe"
_TOKEN = "token"  # noqa: S105 - a file's name
_PREFIX = ".perstack-probe-"
_LABELS = {naming.MANAGED_BY: naming.MANAGER, naming.PART: "probe"}
_SECONDS = 60
"""How long a probe may take; after that, what it left is stale."""
_ANSWER_BYTES = 64
_NONE_SECONDS = 10 * 60
"""How long the answer counts that files do not cross."""


async def probe_share(engine: DockerClient, image: str, directory: Path | None) -> Share:
    """Find out how containers of the engine see files below `directory`, or below where it will be; None is not seen.

    A directory in which nothing can be made, so that nothing can be tried, counts as shared: the first Sandbox shows if
    it is not. Whether its file system takes other spellings is looked up here, too, by the names of files that exist.

    Raises:
        BackendError: the engine does not answer.
    """
    async with engine.translating_errors("report its capabilities"):
        engine_id = (await engine.engine_info()).id or engine.address
    if directory is None:
        return Share(engine_id, Sharing.NONE)
    above, remembered = await in_thread(partial(_places, f"{engine_id} {engine.address}", directory))
    sharing = _recall(remembered)
    if sharing is None:
        sharing = await _probe(engine, image, above)
        if sharing is not None:
            _remember(remembered, sharing)
    if sharing in {None, Sharing.EXACT}:
        sharing = Sharing.FOLDED if await in_thread(partial(_folds, directory)) else Sharing.EXACT
    return Share(engine_id, sharing)


def _folds(directory: Path) -> bool:
    """Whether a file of the directory is also found by a spelling that its list has not.

    Inode numbers would not show it: a share may give the same file another one each time.
    """
    with suppress(OSError):
        names = {entry.name for entry in os.scandir(directory)}
        return any(other not in names and os.path.lexists(directory / other) for other in map(str.swapcase, names))
    return False


async def forget_share(engine: DockerClient, directory: Path) -> None:
    """Forget the answer for a directory, because a mount showed that it is wrong."""
    engine_id = (await engine.engine_info()).id or engine.address
    _, remembered = await in_thread(partial(_places, f"{engine_id} {engine.address}", directory))
    with suppress(OSError):
        if remembered is not None:
            remembered.unlink(missing_ok=True)


async def _probe(engine: DockerClient, image: str, above: Path) -> Sharing | None:
    """Return how the engine sees a new directory in `above`; None if none can be made."""
    try:
        made = await in_thread(partial(_make, above))
    except OSError:
        return None
    try:
        await _remove_stale(engine)
        token = secrets.token_hex(16)
        (made / _TOKEN).write_text(token, encoding="ascii")
        helper = HelperContainer(engine, f"perstack-probe-{secrets.token_hex(8)}")
        async with engine.translating_errors("create a container"), cleanup_after(helper):
            try:
                await shielded(helper.create(_body(image, made)))
            except StatusError as error:
                if "bind source path" in str(error):
                    return Sharing.NONE
                raise
            if not await _reads(engine, helper.name, _TOKEN, token):
                return Sharing.NONE
            return Sharing.FOLDED if await _reads(engine, helper.name, _TOKEN.upper(), token) else Sharing.EXACT
    finally:
        await in_thread(lambda: shutil.rmtree(made, ignore_errors=True))


def _make(above: Path) -> Path:
    """Make the directory; remove those of processes that were killed."""
    for left in above.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _SECONDS:
                shutil.rmtree(left)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))


async def _remove_stale(engine: DockerClient) -> None:
    """Remove the containers of processes that were killed."""
    async with engine.translating_errors("list its containers"):
        for container in await engine.labelled(_LABELS):
            if int(container["Labels"].get(naming.DEADLINE, "0")) < now() // 1000:
                await removed(engine, str(container["Id"]))


def _body(image: str, source: Path) -> dict[str, Any]:
    deadline = str(now() // 1000 + _SECONDS)
    return {
        "Image": image,
        "Entrypoint": ["/bin/false"],
        "Cmd": [],
        "NetworkDisabled": True,
        "Labels": {**_LABELS, naming.DEADLINE: deadline},
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [{"Type": "bind", "Source": str(source), "Target": _TARGET, "ReadOnly": True}],
        },
    }


async def _reads(engine: DockerClient, container: str, name: str, token: str) -> bool:
    """Whether the engine finds the token in a file of this name."""
    try:
        return token.encode() in b"".join([piece async for piece in engine.archive(container, f"{_TARGET}/{name}")])
    except StatusError:
        return False


def _places(engine: str, directory: Path) -> tuple[Path, Path | None]:
    """Return the nearest directory above `directory`, and the file that remembers the answer for the engine and it.

    The answer counts for a mount; of a machine's root for each directory in it, since products share only some.
    """
    above = next(each for each in directory.absolute().parents if each.is_dir())
    state, real = state_of_caller(), above.resolve()
    mount = next(each for each in (real, *real.parents) if os.path.ismount(each))
    top = mount.joinpath(*real.relative_to(mount).parts[:1])
    digest = hashlib.sha256(f"{engine}\0{mount.stat().st_dev}\0{top}".encode(errors="surrogateescape")).hexdigest()
    return above, state and state / "shares" / digest[:32]


def _recall(path: Path | None) -> Sharing | None:
    with suppress(OSError, ValueError):
        if path is None:
            return None
        sharing = Sharing(path.read_text(encoding="ascii")[:_ANSWER_BYTES].strip())
        # The user may have a product share the directory now, and nothing else would find that out.
        is_stale = sharing is Sharing.NONE and time.time() - path.stat().st_mtime > _NONE_SECONDS
        return None if is_stale else sharing
    return None


def _remember(path: Path | None, sharing: Sharing) -> None:
    with suppress(OSError):
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, f"{sharing}\n".encode())
