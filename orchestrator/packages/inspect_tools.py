"""Lists the tools of an Expert's skills: starts each skill once, in a Sandbox, as in a Run."""

import secrets
from dataclasses import replace

from orchestrator.config.lock_file import SkillTools
from orchestrator.errors import PackageError
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import first, plan
from orchestrator.plan.validation import check
from orchestrator.pool.one_off import run_one_off
from orchestrator.sandbox.api import Backend
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.units import now
from orchestrator.wire.masking import hide

INSPECTION_SECONDS = 300
"""How long the skills of one Expert may take to start and to list their tools."""


async def inspect(job: Job, backend: Backend) -> SkillTools:
    """Return the tools of each skill of the job's Expert, also the built-in ones, after `pick` and `omit`.

    Raises:
        MissingEnvError: a skill's variable has no value.
        PackageError: a skill does not start; the message has the reason.
        BackendError: the Sandbox could not be started.
    """
    check(job)
    planned = plan(job, first(job), secrets.token_bytes(KEY_BYTES), now())
    authority = replace(planned.authority, max_generations=0)
    try:
        ended, session = await run_one_off(
            job,
            backend,
            lambda session: session.assign_inspection(planned.run, authority),
            seconds=INSPECTION_SECONDS,
        )
    except TimeoutError as error:
        message = (
            f"the skills of Expert {job.expert_key!r} took longer than {INSPECTION_SECONDS} s to list their tools; "
            "start them with perstack-orch shell and see what they wait for"
        )
        raise PackageError(message) from error
    if ended.code != 0 or session.tools is None:
        reason = ended.last_line or f"the Sandbox ended ({ended.reason}, exit code {ended.code})"
        message = f"Expert {job.expert_key!r}: {hide(job.secrets)(reason)}"
        raise PackageError(message)
    return session.tools
