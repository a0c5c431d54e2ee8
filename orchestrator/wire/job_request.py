"""What a coordinator in a cluster is to do, as whoever submits a job leaves it in a Secret.

The Secret is mounted at `/job`:

    perstack.toml     the config, as it was written
    perstack.lock     the lock beside it; may be missing
    request.json      a JobRequest
    env.json          a JSON object: values of declared variables by name; may be missing or empty
    key               32 bytes, the job's secrets derive from them; may be missing, then the store makes some
    replies.json      replies of the scripted provider; may be missing
    prices.toml       prices of models; may be missing

Its container runs `perstack-orch coordinate`, with the claim at `/claim`. The environment holds, where wished for,
`PERSTACK_RUNTIME_IMAGE`, `PERSTACK_OUTSIDE`, `PERSTACK_POD_SETTING` (a file) and `PERSTACK_BROKER_PORT`; namespace, Job
and claim it learns from its own Pod. Variables of two Secrets are told apart by what their names begin with:
`PROVIDER_PREFIX` those of the provider, which no Expert is given, `SKILL_PREFIX` those that skills may be given. Of
`perstack.toml` only what `BASE_URLS` and `HEADERS` allow may say where the provider's key is sent.
"""

from orchestrator.wire.frozen import Frozen

DIRECTORY = "/job"
CONFIG, LOCK, REQUEST, ENVIRONMENT = "perstack.toml", "perstack.lock", "request.json", "env.json"
KEY, REPLIES, PRICES = "key", "replies.json", "prices.toml"
CLAIM_DIRECTORY = "/claim"
PROVIDER_PREFIX, SKILL_PREFIX = "PERSTACK_PROVIDER__", "PERSTACK_SKILL__"
BASE_URLS, HEADERS = "PERSTACK_BASE_URLS", "PERSTACK_HEADERS"
"""Variables with base URLs, or `*` for any, and with names of headers; words with spaces between."""
BROKER_PORTS = (7443, 7444)
"""Of the broker, and the one that no Sandbox may reach: the coordinator's own NetworkPolicy has to admit both."""


class JobRequest(Frozen, forbid_unknown_fields=True):
    """`request.json`: what `run` and `resume` take as options, under the same names.

    Without `job_id` it follows from the coordinator's own Job, as for one that a schedule makes. `go_on` is whether a
    job of that id is to be gone on with: with `query` if there is one, which with `answers` answers a question of the
    Expert; else what was cut off is finished. A coordinator that is begun again finishes what was cut off in any case.
    `namespace` and `installation` are there where they were named, so that commands can be told which find the job.
    `timeout_ms` is milliseconds for one generation; other limits are seconds.
    """

    expert_key: str = ""
    query: str | None = None
    job_id: str | None = None
    user: str | None = None
    namespace: str | None = None
    installation: str | None = None
    go_on: bool = False
    answers: bool = False
    resume_from: str | None = None
    strict: bool = False
    provider: str | None = None
    model: str | None = None
    max_steps: int | None = None
    max_retries: int | None = None
    reasoning_budget: str | None = None
    timeout_ms: int | None = None
    env: tuple[str, ...] = ()
    allow_domain: tuple[str, ...] = ()
    image: str | None = None
    runtime_class: str | None = None
    run_as: str | None = None
    prewarm: str = "auto"
    events: str = "default"
    verbose: bool = False
    run_seconds: float | None = None
    job_seconds: float | None = None
    start_seconds: float | None = None
    outside: tuple[str, ...] = ()
    allow_unenforced_network: bool = False
