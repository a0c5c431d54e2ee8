"""One watch of Jobs and one of Pods for each instance whose Sandboxes are held here."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.kubernetes_api import Api, selector
from orchestrator.backends.kubernetes_mirror import Mirror
from orchestrator.backends.kubernetes_warnings import Warnings

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Watched:
    """Where Sandboxes are seen: the namespace, its API, what is known of Jobs and Pods, what the cluster warns of.

    `note` takes remarks for a log, `announce` what a person should hear at once.
    """

    api: Api
    namespace: str
    jobs: Mirror
    pods: Mirror
    warnings: Warnings
    note: Note
    announce: Note


@dataclass(slots=True)
class Watching:
    """Begins to watch when the first Sandbox of an instance is held, and watches on until it is closed."""

    api: Api
    namespace: str
    note: Note
    announce: Note
    _watched: dict[str, Watched] = field(default_factory=dict)
    _keeping: list["asyncio.Task[None]"] = field(default_factory=list)
    _warnings: Warnings = field(init=False)

    def __post_init__(self) -> None:
        self._warnings = Warnings(self.api, self.namespace)

    def of(self, instance: str) -> Watched:
        """Give what is known of the Sandboxes of an instance."""
        if instance not in self._watched:
            mine = selector(naming.instance_labels(instance))
            jobs = Mirror(self.api, kubernetes_api.jobs(self.namespace), mine, self.note)
            pods = Mirror(self.api, kubernetes_api.pods(self.namespace), mine, self.note)
            self._watched[instance] = Watched(
                self.api, self.namespace, jobs, pods, self._warnings, self.note, self.announce
            )
            # Kept by hand: whatever a TaskGroup would cancel is the caller's own block.
            self._keeping += [asyncio.ensure_future(mirror.keep()) for mirror in (jobs, pods)]
        return self._watched[instance]

    async def close(self) -> None:
        """Watch nothing any more."""
        for task in self._keeping:
            task.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping)
