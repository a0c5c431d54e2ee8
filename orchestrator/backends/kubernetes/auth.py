"""How to reach the API server and with which credential: a Pod's service account, or a kubeconfig.

The official client takes over a second to import, several times what a Pod takes to start. It is used where it is
worth that: for credentials that a program or an identity provider gives out. A Pod's account, tokens and client
certificates are read here.
"""

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendUnavailableError

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PLAIN = {"token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"}
_FRESH_SECONDS = 60.0
"""How long a credential is used before it is looked up again: a Pod's token is rotated on the disk."""

TokenSource = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class ClusterCredentials:
    """`server` is a URL, `authorization` gives the header of that name if there is any, `namespace` is the usual."""

    server: str
    tls: ssl.SSLContext | None
    authorization: TokenSource
    namespace: str = "default"
    server_name: str | None = None


async def find_credentials(environ: Mapping[str, str]) -> ClusterCredentials:
    """Find the access: KUBECONFIG, else a Pod's account, else ~/.kube/config.

    Raises:
        BackendUnavailableError: none of these exists, or it cannot be used; the message names it.
    """
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(":") if part]
    if not named and "KUBERNETES_SERVICE_HOST" in environ and (_ACCOUNT / "token").exists():
        return _of_account(environ)
    usual = Path(environ.get("HOME", "/")) / ".kube" / "config"
    paths = named or [usual]
    if not any(path.exists() for path in paths):
        message = f"no cluster is named: {paths[0]} does not exist; set KUBECONFIG"
        raise BackendUnavailableError(message)
    try:
        return _of_file(paths[0]) if len(paths) == 1 and _is_plain(paths[0]) else await _of_client(paths)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{paths[0]} cannot be used ({type(error).__name__}: {error}); try `kubectl get nodes` with it"
        raise BackendUnavailableError(message) from error


def _of_account(environ: Mapping[str, str]) -> ClusterCredentials:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    namespace = (_ACCOUNT / "namespace").read_text().strip()
    return ClusterCredentials(f"https://{host}:{port}", tls, _from_file(_ACCOUNT / "token"), namespace)


def _from_file(path: Path) -> TokenSource:
    def read() -> str:
        return f"Bearer {path.read_text().strip()}"

    return _cached(partial(asyncio.to_thread, read))


def _cached(read: Callable[[], Awaitable[str | None]]) -> TokenSource:
    """Cache a credential, and look it up again once it is old."""
    found: tuple[float, str | None] | None = None

    async def bearer() -> str | None:
        nonlocal found
        if found is None or time.monotonic() - found[0] > _FRESH_SECONDS:
            found = time.monotonic(), await read()
        return found[1]

    return bearer


async def _anonymous() -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Context:
    """The cluster, user and namespace of a kubeconfig's current context."""

    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str

    @classmethod
    def read(cls, path: Path) -> "_Context":
        import yaml  # noqa: PLC0415 - a Pod has no kubeconfig

        content = yaml.safe_load(path.read_text())
        context = _entry_named(content["contexts"], content["current-context"])["context"]
        user = _entry_named(content.get("users") or [], context.get("user"))["user"]
        cluster = _entry_named(content["clusters"], context["cluster"])["cluster"]
        return cls(cluster, user or {}, context.get("namespace") or "default")


def _entry_named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    message = f"it has no {name!r}"
    raise ValueError(message)


def _is_plain(path: Path) -> bool:
    context = _Context.read(path)
    return context.user.keys() <= _PLAIN and "proxy-url" not in context.cluster


def _of_file(path: Path) -> ClusterCredentials:
    context = _Context.read(path)
    cluster, user = context.cluster, context.user
    tls = None
    if cluster["server"].startswith("https:"):
        authority = _content(cluster, "certificate-authority", path)
        tls = ssl.create_default_context(cadata=None if authority is None else authority.decode())
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        _present(tls, _content(user, "client-certificate", path), _content(user, "client-key", path))
    token, token_file = user.get("token"), user.get("tokenFile")

    async def plain() -> str:
        return f"Bearer {token}"

    bearer = plain if token else _from_file(path.parent / token_file) if token_file else _anonymous
    return ClusterCredentials(cluster["server"], tls, bearer, context.namespace, cluster.get("tls-server-name"))


def _content(entry: Mapping[str, Any], key: str, kubeconfig: Path) -> bytes | None:
    if (data := entry.get(f"{key}-data")) is not None:
        return base64.b64decode(data)
    return (kubeconfig.parent / entry[key]).read_bytes() if key in entry else None


def _present(tls: ssl.SSLContext, certificate: bytes | None, key: bytes | None) -> None:
    """Make the client present a certificate; ssl reads it from files only."""
    if certificate is None or key is None:
        return
    with tempfile.NamedTemporaryFile() as certificate_file, tempfile.NamedTemporaryFile() as key_file:
        for file, content in ((certificate_file, certificate), (key_file, key)):
            file.write(content)
            file.flush()
        tls.load_cert_chain(certificate_file.name, key_file.name)


async def _of_client(paths: list[Path]) -> ClusterCredentials:
    """Use the official client to read the kubeconfig."""
    from kubernetes.aio import client, config  # noqa: PLC0415 - see above

    async def loaded() -> Any:
        made = client.Configuration()
        try:
            await config.load_kube_config(  # type: ignore[no-untyped-call] # as it comes
                config_file=":".join(map(str, paths)), client_configuration=made
            )
        except config.ConfigException as error:
            raise ValueError(str(error)) from error
        return made

    first = await loaded()
    if first.proxy:
        message = "a proxy to the API server is not supported"
        raise ValueError(message)
    tls = ssl.create_default_context(cafile=first.ssl_ca_cert)
    if not first.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if first.cert_file:
        tls.load_cert_chain(first.cert_file, first.key_file)

    async def bearer() -> str | None:
        value = (await loaded()).api_key.get("BearerToken")
        return None if value is None else str(value)

    return ClusterCredentials(first.host, tls, _cached(bearer), server_name=first.tls_server_name)
