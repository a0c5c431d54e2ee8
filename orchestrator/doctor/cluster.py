"""A cluster: whether its API server answers, its version, the installation, and the rights of this account."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.backends.kubernetes.preflight import SUBMITTER, missing, review_rules
from orchestrator.cluster.installation import find_installation
from orchestrator.doctor.finding import Area, Finding, Level, of_error, ok
from orchestrator.errors import BackendError, OrchestratorError


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """Where jobs are submitted to, as the options name it; `required` is whether the job that is checked goes there."""

    namespace: str | None
    installation: str | None
    required: bool


def is_named(environ: Mapping[str, str]) -> bool:
    """Whether the environment or the usual kubeconfig names a cluster."""
    home = environ.get("HOME")
    return bool(environ.get("KUBECONFIG")) or (home is not None and (Path(home) / ".kube" / "config").exists())


async def cluster_findings(place: ClusterPlace, environ: Mapping[str, str], findings: list[Finding]) -> None:
    """Add what was found to `findings`, as it is found."""
    level = Level.PROBLEM if place.required else Level.WARNING
    try:
        access = await find_credentials(environ)
    except OrchestratorError as error:
        findings.append(of_error(Area.CLUSTER, "access", error, level=level))
        return
    api = KubernetesClient(access)
    namespace = place.namespace or access.namespace
    try:
        async with api.translating_errors("report its version"):
            version = await api.read("/version")
        findings.append(ok(Area.CLUSTER, "server", f"{api.server}, Kubernetes {version.get('gitVersion', 'unknown')}"))
        for check, call in (("rights", _check_rights), ("installation", _check_installation)):
            try:
                findings.append(ok(Area.CLUSTER, check, await call(api, namespace, place)))
            except OrchestratorError as error:
                findings.append(of_error(Area.CLUSTER, check, error, level=level))
    except OrchestratorError as error:
        findings.append(of_error(Area.CLUSTER, "server", error, level=level))
    finally:
        api.close()


async def _check_rights(api: KubernetesClient, namespace: str, _place: ClusterPlace) -> str:
    async with api.translating_errors("report what you may do"):
        rules = await review_rules(api, namespace)
    lacking = missing(rules.get("resourceRules") or (), SUBMITTER)
    if lacking and not rules.get("incomplete"):
        message = (
            f"you may not {', '.join(lacking)} in the namespace {namespace}: ask an administrator for the chart's Role"
            " of submitters"
        )
        raise BackendError(message)
    return f"this account may submit jobs in the namespace {namespace}"


async def _check_installation(api: KubernetesClient, namespace: str, place: ClusterPlace) -> str:
    found = await find_installation(api, namespace, place.installation)
    return f"{found.name} in the namespace {found.namespace}"
