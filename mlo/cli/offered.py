"""Commands whose next word names what an installed package offers; it is imported when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from mlo.benchmark import Benchmark
from mlo.cli.layers import configured
from mlo.cli.output import first_line
from mlo.cli.settings import SettingOption, setting_options
from mlo.errors import ConfigurationError, listed
from mlo.plugins import Catalogue
from mlo.recipe import Recipe

Options = Mapping[str, Any]
"""The command's own options by name."""

Act = Callable[[Any, Any, Options], None]
"""Does what the command is for, with a recipe or benchmark, its configuration and the options."""

_PRECEDENCE = "The options of settings win over --set, --set over a file, a file over {}."

Offer = Recipe[Any] | Benchmark[Any]


class OfferedGroup(click.Group):
    """A command such as `run RECIPE`; every recipe is a subcommand with its own settings.

    Args:
        name: of the command.
        catalogue: what may follow.
        act: what the command does.
        options: makes the command's own options.
        settings: as for `click.Group`.
    """

    def __init__(
        self,
        name: str,
        catalogue: Catalogue[Any],
        act: Act,
        *,
        options: Callable[[], Sequence[click.Parameter]],
        **settings: Any,
    ) -> None:
        super().__init__(
            name,
            invoke_without_command=True,
            subcommand_metavar=f"{catalogue.noun.upper()} [SETTINGS]",
            options_metavar="",
            epilog=f"'mlo {name} {catalogue.noun.upper()} --help' lists all settings and options.",
            **{"callback": self.refuse_alone, **settings},
        )
        self.catalogue = catalogue
        self.act = act
        self.options = options

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names that are offered; nothing is imported."""
        return list(self.catalogue.find())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import what is called so, and make a command of it.

        Raises:
            ConfigurationError: there is none, or it is damaged; not while a word is completed.
        """
        try:
            return settings_command(self.catalogue.load(cmd_name), self.act, self.options())
        except ConfigurationError:
            if ctx.resilient_parsing:
                return None
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what comes before the name.

        Raises:
            ConfigurationError: there is an option that belongs behind it.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise ConfigurationError(
                f"{ctx.command_path}: the {self.catalogue.noun} comes first, before the option "
                f"'{error.option_name}'"
            ) from error

    def refuse_alone(self) -> None:
        """Say what is missing where no name follows.

        Raises:
            ConfigurationError: no name follows.
        """
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            noun = self.catalogue.noun
            raise ConfigurationError(
                f"{context.command_path}: expected a {noun} (known: "
                f"{listed(self.catalogue.find())}); --help says more"
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; an unknown one is told by the catalogue."""
        command = self.get_command(ctx, args[0])
        return (args[0] if command else None), command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List what is offered, what is damaged too."""
        rows = [(name, summary(self.catalogue, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section(f"{self.catalogue.noun.capitalize()}s"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The names that begin so, without importing any, and the options."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*map(CompletionItem, names), *options]


class SettingsCommand(click.Command):
    """A command that shows its settings apart from its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write two sections."""
        settings: list[tuple[str, str]] = []
        own: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (settings if isinstance(param, SettingOption) else own).append(record)
        for heading, rows in (("Options", own), (f"Settings of {self.name}", settings)):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def settings_command(offer: Offer, act: Act, options: Sequence[click.Parameter]) -> click.Command:
    """Make the command that does something with a recipe or benchmark.

    Args:
        offer: the recipe or benchmark.
        act: what to do.
        options: the command's own.

    Raises:
        ConfigurationError: a setting has the name of one of the options.
    """
    presets = offer.presets if isinstance(offer, Recipe) else {}
    taken = {"--help"}.union(*(option.opts for option in options))

    def callback(**given: Any) -> None:
        context = click.get_current_context()
        act(offer, configured(context, offer.config, presets, offer.name), given)

    return SettingsCommand(
        offer.name,
        callback=callback,
        params=[*options, *setting_options(offer.config, presets, taken)],
        help=offer.summary,
        epilog=_PRECEDENCE.format("a preset" if presets else "the defaults"),
    )


def summary(catalogue: Catalogue[Any], name: str) -> str:
    """What an offer is, in a line; a damaged package must not hide the others."""
    try:
        return first_line(catalogue.load(name).summary)
    except ConfigurationError as error:
        return damaged(error)


def damaged(error: ConfigurationError) -> str:
    """What stands in the place of a summary that cannot be had."""
    return f"(cannot be loaded: {first_line(str(error))})"
