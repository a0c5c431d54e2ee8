"""Authenticates Sandboxes by token: the cluster signed it for one Pod and our audience, and that Pod is a Sandbox.

The token is a projected one of a service account, with our own audience: the API server refuses it, so stealing it
gains nothing, and it expires with its Pod. Its signature is checked here against the cluster's public keys, which costs
no write and needs no right that a service account lacks (RFC 7519; Kubernetes, "Service account token volume
projection").
"""

import asyncio
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import import_module
from typing import Any

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import ANSWER_SECONDS, KubernetesClient, Object
from orchestrator.backends.kubernetes.manifest import AUDIENCE
from orchestrator.errors import WireError
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import AuthenticationError, PodIdentity

_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_SKEW_SECONDS = 30
_REFRESH_SECONDS = 10.0
"""The least time between requests for the keys: a token with an unknown key must not cause a request each time."""


@dataclass(slots=True)
class PodTokenVerifier:
    """Authenticates the Sandboxes of one namespace by their tokens."""

    api: KubernetesClient
    namespace: str
    _issuer: str = ""
    _keys: dict[str, Any] = field(default_factory=dict)
    _requested_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def learn(self) -> None:
        """Fetch the issuer of tokens and its keys."""
        configuration = await self.api.read("/.well-known/openid-configuration")
        found = await self.api.read("/openid/v1/jwks")
        self._issuer = str(configuration["issuer"])
        self._keys = {str(key["kid"]): key for key in found["keys"] if key.get("use", "sig") == "sig"}
        self._requested_at = asyncio.get_running_loop().time()

    async def ready(self) -> None:
        """Import the token library, which is slow; called once Sandboxes exist that will show tokens."""
        if "jwt" not in sys.modules:
            await asyncio.to_thread(import_module, "jwt")

    async def verify(self, token: str) -> PodIdentity:
        """Return the Sandbox that `token` belongs to.

        Raises:
            AuthenticationError: the token is not a Sandbox's, or no longer valid.
            WireError: the cluster cannot be asked now.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                claims = await self._claims(token)
                pod = claims.get("kubernetes.io", {}).get("pod")
                if claims.get("kubernetes.io", {}).get("namespace") != self.namespace or not pod:
                    message = f"the token is not of a Pod in the namespace {self.namespace}"
                    raise AuthenticationError(message)
                return _bearer(await self._pod(str(pod["name"])), str(pod["uid"]))
        except (StatusError, ConnectionBrokenError, TimeoutError) as error:
            message = f"the cluster cannot verify a token now: {error}"
            raise WireError(message) from error

    async def _claims(self, token: str) -> dict[str, Any]:
        import jwt  # noqa: PLC0415 - only jobs in a cluster need it

        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=AUDIENCE,
                issuer=self._issuer,
                leeway=_SKEW_SECONDS,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.InvalidTokenError as error:
            message = f"the token is not valid: {error}"
            raise AuthenticationError(message) from error
        return claims

    async def _key(self, key_id: str) -> Any:
        import jwt  # noqa: PLC0415 - the same

        async with self._lock:
            clock = asyncio.get_running_loop().time
            if key_id not in self._keys and clock() - self._requested_at > _REFRESH_SECONDS:
                await self.learn()
        if key_id not in self._keys:
            message = "the token is signed with a key that is not the cluster's"
            raise AuthenticationError(message)
        return jwt.PyJWK(self._keys[key_id]).key

    async def _pod(self, name: str) -> Object:
        try:
            return await self.api.read(client.pods(self.namespace, name))
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = f"the Pod {name} is gone"
            raise AuthenticationError(message) from error


def _bearer(pod: Object, uid: str) -> PodIdentity:
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    sandbox = labels.get(naming.SANDBOX)
    owners = {owner["name"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")}
    if metadata["uid"] != uid or labels.get(naming.MANAGED_BY) != naming.MANAGER or owners != {sandbox}:
        message = f"the Pod {metadata['name']} is no Sandbox"
        raise AuthenticationError(message)
    return PodIdentity(str(sandbox), uid, frozenset(str(each["ip"]) for each in status.get("podIPs") or ()))
