"""Help as plain text in sections: what a verb takes, then its options by what they are about.

Plain, because drawing boxes costs a third of the time that `kinema --help` may take, and because text can be
piped, searched and pasted.
"""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

PLAIN: dict[str, Any] = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
ARGUMENTS, OTHER = "Arguments", "Other"
_FROM_THE_END = re.compile(r"-\d+(\.\.\S+)?\s*:")


class VerbCommand(TyperCommand):
    """A verb whose options are listed under their panels, and whose arguments look as they are written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed; a place from the end, `-1: a snowman`, is no option."""
        try:
            return super().parse_args(ctx, [f" {a}" if _FROM_THE_END.match(a) else a for a in args])
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:  # an option without its value does not say of which verb
                vars(error)["ctx"] = ctx
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] PROMPT`: the parser's versions disagree on the brackets around an argument."""
        return ["[OPTIONS]", *(str(p.metavar) for p in self.get_params(ctx) if _section(p) == ARGUMENTS)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel, in the order of first use; `--help` last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (row := _row(parameter, ctx)) is not None:
                sections.setdefault(_section(parameter), []).append(row)
        widest = min(30, max(len(name) for rows in sections.values() for name, _ in rows))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), text) for name, text in rows])


class VerbGroup(TyperGroup):
    """The program: its verbs under their panels, each with the first sentence of its help."""

    command_class = VerbCommand

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section of verbs per panel."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, verb in self.commands.items():
            title = getattr(verb, "rich_help_panel", None) or "Commands"
            sentence = (verb.help or "").strip().split("\n\n")[0]
            sections.setdefault(title, []).append((name.ljust(9), " ".join(sentence.split())))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _row(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    if _section(parameter) == ARGUMENTS:
        return parameter.metavar, parameter.help
    row: tuple[str, str] | None = parameter.get_help_record(ctx)
    return row


def _section(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return ARGUMENTS
    return getattr(parameter, "rich_help_panel", None) or OTHER
