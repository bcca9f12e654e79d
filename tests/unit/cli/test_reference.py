"""The generated pages are those of the code."""

from __future__ import annotations

from pathlib import Path

from processor.cli import reference

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_configuration_page_is_up_to_date() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    assert page == reference.render_settings_markdown(), "run: python -m processor.cli.reference"


def test_the_metrics_page_is_up_to_date() -> None:
    page = (DOCS / "metrics.md").read_text("utf-8")
    assert page == reference.render_metrics_markdown(), "run: python -m processor.cli.reference"
