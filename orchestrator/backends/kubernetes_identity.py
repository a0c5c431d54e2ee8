"""Who shows a token: the cluster signed it for one Pod and for us, and that Pod is a Sandbox.

A projected token of a service account with an audience of our own: the API server refuses it, so nothing is won by
stealing it, and it ends with its Pod. Its signature is checked here against the cluster's public keys, which costs no
write and needs no right that a service account lacks (RFC 7519; Kubernetes, "Service account token volume projection").
"""

import asyncio
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import import_module
from typing import Any

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS, Api, Object
from orchestrator.backends.kubernetes_manifest import AUDIENCE
from orchestrator.errors import WireError
from orchestrator.sandbox import Bearer, StrangerError

_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_SKEW_SECONDS = 30
_AGAIN_SECONDS = 10.0
"""How soon the keys are asked for again: a token of a key that nobody knows must not make us ask each time."""


@dataclass(slots=True)
class Identity:
    """Knows the Sandboxes of one namespace by their tokens."""

    api: Api
    namespace: str
    _issuer: str = ""
    _keys: dict[str, Any] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def learn(self) -> None:
        """Ask who signs tokens here, and with which keys."""
        told = await self.api.read("/.well-known/openid-configuration")
        found = await self.api.read("/openid/v1/jwks")
        self._issuer = str(told["issuer"])
        self._keys = {str(key["kid"]): key for key in found["keys"] if key.get("use", "sig") == "sig"}
        self._asked_at = asyncio.get_running_loop().time()

    async def ready(self) -> None:
        """Import what reads tokens, which takes a while: for when there are Sandboxes that will show some."""
        if "jwt" not in sys.modules:
            await asyncio.to_thread(import_module, "jwt")

    async def bearer(self, token: str) -> Bearer:
        """Say who shows `token`.

        Raises:
            StrangerError: it is not one of a Sandbox's, or not any more.
            WireError: nobody can say now.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                claims = await self._claims(token)
                pod = claims.get("kubernetes.io", {}).get("pod")
                if claims.get("kubernetes.io", {}).get("namespace") != self.namespace or not pod:
                    message = f"the token is not of a Pod in the namespace {self.namespace}"
                    raise StrangerError(message)
                return _bearer(await self._pod(str(pod["name"])), str(pod["uid"]))
        except (RefusalError, BrokenError, TimeoutError) as error:
            message = f"the cluster does not say who shows a token: {error}"
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
            raise StrangerError(message) from error
        return claims

    async def _key(self, key_id: str) -> Any:
        import jwt  # noqa: PLC0415 - the same

        async with self._asking:
            clock = asyncio.get_running_loop().time
            if key_id not in self._keys and clock() - self._asked_at > _AGAIN_SECONDS:
                await self.learn()
        if key_id not in self._keys:
            message = "the token is signed with a key that is not the cluster's"
            raise StrangerError(message)
        return jwt.PyJWK(self._keys[key_id]).key

    async def _pod(self, name: str) -> Object:
        try:
            return await self.api.read(kubernetes_api.pods(self.namespace, name))
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            message = f"the Pod {name} is gone"
            raise StrangerError(message) from error


def _bearer(pod: Object, uid: str) -> Bearer:
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    sandbox = labels.get(naming.SANDBOX)
    owners = {owner["name"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")}
    if metadata["uid"] != uid or labels.get(naming.MANAGED_BY) != naming.MANAGER or owners != {sandbox}:
        message = f"the Pod {metadata['name']} is no Sandbox"
        raise StrangerError(message)
    return Bearer(str(sandbox), uid, frozenset(str(each["ip"]) for each in status.get("podIPs") or ()))
