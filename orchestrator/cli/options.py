"""Options of the command line as they were typed; None is an option that was not given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `run` was asked for.

    `timeout_ms` is for one generation. `allow_domain` are SKILL=HOST. `answers` says that the query is the answer to
    a question. Without `query` a job is only gone on with.
    """

    expert_key: str
    query: str | None
    config: str | None = None
    strict: bool = False
    workspace: str | None = None
    storage: str = "perstack"
    backend: str = "docker"
    model: str | None = None
    provider: str | None = None
    max_steps: int | None = None
    max_retries: int | None = None
    reasoning_budget: str | None = None
    timeout_ms: int | None = None
    job_id: str | None = None
    env: tuple[str, ...] = ()
    env_path: tuple[str, ...] = ()
    allow_domain: tuple[str, ...] = ()
    image: str | None = None
    run_as: str | None = None
    events: str = "default"
    verbose: bool = False
    continue_latest: bool = False
    continue_job: str | None = None
    resume_from: str | None = None
    answers: bool = False
    run_seconds: float | None = None
    job_seconds: float | None = None
