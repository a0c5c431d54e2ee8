"""The page that `perstack-orch COMMAND --help` prints: options in panels, the rarely needed ones last."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from typer.core import TyperArgument, TyperCommand, TyperOption

from orchestrator.plan.job_options import Panel

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

_DEFAULT_PANEL = "Options"
# The lower limit of a number is not worth the space.
_RANGE = re.compile(r"  \[x>=[^\]]*\]$|; x>=[^\]]*(?=\]$)")


class HelpPage(TyperCommand):
    """A command whose help shows each option under the panel that it was declared with."""

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        """Name the arguments as in the list of arguments."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the arguments, the options without a panel, and the panels."""
        arguments = [
            (each.display_name_raw, each.help or "") for each in self.params if isinstance(each, TyperArgument)
        ]
        for title, rows in (("Arguments", arguments), *self._options(ctx)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _options(self, ctx: "Context") -> Iterator[tuple[str, list[tuple[str, str]]]]:
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (_DEFAULT_PANEL, *Panel)}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, TyperOption) else None
            if isinstance(param, TyperOption) and record is not None:
                sections[param.rich_help_panel or _DEFAULT_PANEL].append((record[0], _RANGE.sub("", record[1])))
        yield from sections.items()
