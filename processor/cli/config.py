"""`processor config`: the settings in force, and where each comes from."""

from __future__ import annotations

import click

from processor.cli.output import Column, Output, output_options


@click.group()
def config() -> None:
    """The settings in force."""


@config.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--changed", is_flag=True, help="Only those that are not the default.")
@click.option("--help-texts", is_flag=True, help="Say what each means.")
@click.option("--config", "path", type=click.Path(dir_okay=False), help="Read this file, not processor.toml.")
@output_options
def show(out: Output, origin: bool, changed: bool, help_texts: bool, path: str | None) -> None:
    """List every setting with its value; secrets are masked."""
    from processor.wire.settings_sources import load_settings, origins

    rows = [
        {"name": row.name, "value": row.value, "origin": row.origin, "default": row.default, "meaning": row.help}
        for row in origins(load_settings(toml_path=path))
        if not changed or row.origin != "default"
    ]
    columns = [Column(name="name"), Column(name="value")]
    if origin:
        columns.append(Column(name="origin", style=lambda value: "dim" if value == "default" else "good"))
    if help_texts:
        columns.append(Column(name="meaning", style=lambda _: "dim"))
    out.table(columns, rows, empty="every setting has its default")
