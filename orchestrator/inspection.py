"""Learning the tools of an Expert's skills: each is started once, in a Sandbox, as in a Run."""

import secrets
from collections.abc import Callable
from dataclasses import replace

from orchestrator.checks import check
from orchestrator.clock import now
from orchestrator.config.lock import SkillTools
from orchestrator.errand import run_errand
from orchestrator.errors import PackageError
from orchestrator.keys import KEY_BYTES
from orchestrator.plan import Job, first, plan
from orchestrator.sandbox import Backend
from orchestrator.wire.masking import hide

INSPECTION_SECONDS = 300
"""How long the skills of one Expert may take to start and to tell their tools."""


async def inspect(job: Job, backend: Backend, announce: Callable[[str], None] = lambda _: None) -> SkillTools:
    """Give the tools of each skill of the job's Expert, the built-in ones too, after `pick` and `omit`.

    `announce` is told what skills left behind that cannot be removed.

    Raises:
        MissingEnvError: a skill's variable has no value.
        PackageError: a skill does not start; says why.
        BackendError: the Sandbox could not be started.
    """
    check(job)
    planned = plan(job, first(job), secrets.token_bytes(KEY_BYTES), now())
    authority = replace(planned.authority, max_generations=0)
    try:
        ended, session = await run_errand(
            job,
            backend,
            lambda session: session.assign_inspection(planned.run, authority),
            seconds=INSPECTION_SECONDS,
            packages=job.shelf.directory,
            announce=announce,
        )
    except TimeoutError as error:
        message = (
            f"the skills of Expert {job.expert_key!r} took longer than {INSPECTION_SECONDS} s to tell their tools; "
            "start them in its place with perstack-orch shell and see what they wait for"
        )
        raise PackageError(message) from error
    if ended.code != 0 or session.tools is None:
        said = ended.last_words or f"the Sandbox ended ({ended.reason}, exit code {ended.code})"
        message = f"Expert {job.expert_key!r}: {hide(job.secrets)(said)}"
        raise PackageError(message)
    return session.tools
