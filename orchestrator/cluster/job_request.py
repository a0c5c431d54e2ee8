"""The work of a coordinator in a cluster, as the submitter of a job leaves it in a Secret.

The Secret is mounted at `/job`:

    perstack.toml     the config, unchanged
    perstack.lock     the lock file next to it; may be missing
    request.json      a JobRequest
    env.json          a JSON object: values of declared variables by name; may be missing or empty
    key               32 bytes from which the job's secrets derive; if missing, the store generates them
    replies.json      replies of the scripted provider (`ProviderSpec.files`); may be missing
    prices.toml       prices of models; may be missing

Its container runs `perstack-orch coordinate`, with the claim at `/claim`. These environment variables are optional:
`PERSTACK_RUNTIME_IMAGE`, `PERSTACK_OUTSIDE`, `PERSTACK_POD_SETTING` (a file) and `PERSTACK_BROKER_PORT`. Namespace,
Job and claim are read from the coordinator's own Pod. A prefix separates the variables of two Secrets: those with
`PROVIDER_PREFIX` are the provider's and never given to an Expert; those with `SKILL_PREFIX` may be given to skills.
`perstack.toml` may direct the provider's key only to addresses that `BASE_URLS` and `HEADERS` allow.
"""

from orchestrator.plan.job_options import JobOptions

DIRECTORY = "/job"
CONFIG, LOCK, REQUEST, ENVIRONMENT = "perstack.toml", "perstack.lock", "request.json", "env.json"
KEY, PRICES = "key", "prices.toml"
CLAIM_DIRECTORY = "/claim"
PROVIDER_PREFIX, SKILL_PREFIX = "PERSTACK_PROVIDER__", "PERSTACK_SKILL__"
BASE_URLS, HEADERS = "PERSTACK_BASE_URLS", "PERSTACK_HEADERS"
"""Variables with the allowed base URLs (`*` for any) and header names, separated by spaces."""
BROKER_PORTS = (7443, 7444)
"""The broker's port, and the port that no Sandbox may reach. The coordinator's NetworkPolicy must admit both."""


class JobRequest(JobOptions, forbid_unknown_fields=True):
    """`request.json`: what to run, and the options of `run` and `resume` under the same names.

    Without `job_id` the id follows from the coordinator's own Job, as for a scheduled one. `go_on` continues the job of
    that id: with `query` as new text, or as the answer to the Expert's question if `answers` is set; without `query` it
    finishes interrupted work. A restarted coordinator finishes interrupted work in any case. `namespace` and
    `installation` are set if the user named them, so that printed commands can find the job.
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
