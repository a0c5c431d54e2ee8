"""What a cluster warns of: one list for all Sandboxes that wait, not one for each of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.backends import kubernetes_api
from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS, Api, Object

_PAGE = 500
_FRESH_SECONDS = 1.0
_SHARE = 10.0
"""How many times as long as it took to list them they are not listed again: there may be thousands."""


@dataclass(slots=True)
class Warnings:
    """The events of a namespace that tell of trouble, by the name of the object that has it."""

    api: Api
    namespace: str
    _about: dict[str, list[Object]] = field(default_factory=dict)
    _stale_at: float = float("-inf")
    _listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def about(self, name: str) -> Sequence[Object]:
        """Give those about an object, oldest first; as of a moment ago, and nothing where they cannot be had."""
        clock = asyncio.get_running_loop().time
        async with self._listing:
            if (began := clock()) >= self._stale_at:
                self._about = await self._listed()
                self._stale_at = clock() + max(_FRESH_SECONDS, _SHARE * (clock() - began))
        return sorted(self._about.get(name, ()), key=_told_at)

    async def _listed(self) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        query = {"fieldSelector": "type=Warning", "limit": str(_PAGE)}
        more: str | None = ""
        while more is not None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    page = await self.api.read(kubernetes_api.events(self.namespace), query)
            except (RefusalError, BrokenError, TimeoutError):
                return found
            for event in page["items"]:
                found.setdefault(event["involvedObject"].get("name", ""), []).append(event)
            more = page["metadata"].get("continue") or None
            query["continue"] = more or ""
        return found


def _told_at(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
