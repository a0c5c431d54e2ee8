"""What `perstack-orch COMMAND --help` writes: options by what they are about, those that few need last."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typer.core import TyperArgument, TyperCommand, TyperOption

from orchestrator.cli.options import CLUSTER

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

SECTIONS: Mapping[str, frozenset[str]] = {
    "Going on with a job": frozenset({"continue_latest", "continue_job", "resume_from", "answers"}),
    "Model and limits": frozenset(
        {"provider", "model", "reasoning_budget", "max_steps", "max_retries", "prices"}
        | {"timeout_ms", "run_seconds", "job_seconds"}
    ),
    "What Experts are given": frozenset({"env", "env_path", "allow_domain"}),
    "Sandboxes": frozenset({"backend", "image", "runtime_class", "run_as", "prewarm"}),
    "Many users on one machine": frozenset({"user", "workspaces"}),
    "With --backend kubernetes": CLUSTER,
}
"""The names of options by the title they stand under; those of no section are first."""

_OTHERS = "Options"
# That a number is not negative goes without saying.
_RANGE = re.compile(r"  \[x>=[^\]]*\]$|; x>=[^\]]*(?=\]$)")


class HelpPage(TyperCommand):
    """A command whose options stand in sections."""

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        """Name the arguments as they are named below."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write arguments, options that belong to no section, and the sections."""
        arguments = [
            (each.display_name_raw, each.help or "") for each in self.params if isinstance(each, TyperArgument)
        ]
        for title, rows in (("Arguments", arguments), *self._options(ctx)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _options(self, ctx: "Context") -> Iterator[tuple[str, list[tuple[str, str]]]]:
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (_OTHERS, *SECTIONS)}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, TyperOption) else None
            if record is not None:
                title = next((title for title, names in SECTIONS.items() if param.name in names), _OTHERS)
                sections[title].append((record[0], _RANGE.sub("", record[1])))
        yield from sections.items()
