"""docs/command-line.md, made from the commands by `python -m processor.cli.reference_cli`; a test keeps it equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from processor.cli.main import COMMANDS, root

_HEAD = """\
# Command line

<!-- Made from the code by `python -m processor.cli.reference_cli`; do not edit. -->

Results go to stdout, progress, remarks and errors to stderr; `--json` prints results for machines. On a terminal there
are colours and progress bars (`NO_COLOR=1` turns the colours off, the extra `cli` brings the bars), elsewhere plain
lines. `--debug` shows the traceback of an error.

Where a command takes `--app MODULE:APP`, the environment variable `PROCESSOR_APP` may say it instead; without `:APP`
the name is `app`, and a file is named `jobs.py:app`. Settings come from flags, the environment, `.env` and
`processor.toml`: see [configuration](configuration.md).

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed: also a job that ended without success |
| 2 | wrong usage, settings or declarations |
| 3 | Kafka did not answer, or refused |
| 4 | topics are not as the app needs them |
| 130 | stopped by Ctrl-C |
"""
_WIDTH = 100


def render_command_line_markdown() -> str:
    """The whole page."""
    rows = "\n".join(f"| [`{name}`](#processor-{name}) | {text} |" for name, text in _available())
    parts = [_HEAD, f"| command | does |\n|---|---|\n{rows}\n"]
    with root.make_context("processor", [], resilient_parsing=True) as context:
        for name, _ in _available():
            command = root.get_command(context, name)
            assert command is not None, name
            parts += _sections(command, name, context, "##")
    return "\n".join(parts)


def _available() -> Iterator[tuple[str, str]]:
    for name in root.list_commands(click.Context(root)):
        yield name, COMMANDS[name][1]


def _sections(command: click.Command, name: str, parent: click.Context, marks: str) -> Iterator[str]:
    """One section per command, the commands of a group after it."""
    context = click.Context(
        command, info_name=name, parent=parent, max_content_width=_WIDTH, terminal_width=_WIDTH, color=False
    )
    path = context.command_path
    if isinstance(command, click.Group):
        yield f"{marks} {path}\n\n{command.help}\n"
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, child
            yield from _sections(found, child, context, f"{marks}#")
        return
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"{marks} {path}\n\n```text\n{text}\n```\n"


def main() -> None:
    """Write the page into the checkout's docs folder."""
    page = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
    page.write_text(render_command_line_markdown(), "utf-8")


if __name__ == "__main__":
    main()
