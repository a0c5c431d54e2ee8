"""Code that runs as another user of this machine, in a separate process; only root can start one."""

import os
import pickle
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def as_user(uid: int, work: Callable[[], T], environ: Mapping[str, str] | None = None) -> T:
    """Call `work` as the user and group `uid`, with only `environ` in the environment; return or raise what it does."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.environ.clear()
            os.environ.update(environ or {})
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            told: tuple[bool, object] = (True, work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            told = (False, error)
        os.write(theirs, pickle.dumps(told))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        done, answer = pickle.loads(pipe.read())  # noqa: S301 - of a process of ours
    os.waitpid(process, 0)
    if not done:
        raise answer
    return answer  # type: ignore[no-any-return] # what work gave
