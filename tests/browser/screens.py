"""Pictures of every page: `python -m tests.browser.screens FOLDER [NAME...]`; `--docs`: those of docs/dashboard.md.

Look at each of them after a change of templates or style: what a picture shows, no test asserts.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import product
from pathlib import Path

from tests.browser.chromium import SCHEMES, WIDTHS, Looker, chromium, looking, turn
from tests.browser.sights import SIGHTS

DOCS = {
    "overview": "overview",
    "jobs": "jobs-filtered",
    "job": "job-dead",
    "letters": "letters",
    "queues": "queues",
    "replay": "replay-plan",
    "care": "care-one",
}
"""Pictures of the documentation, and which page each shows."""


PATHS = """(root) => document.querySelectorAll("pre").forEach((each) => {
  each.textContent = each.textContent.replaceAll(root, "/srv/shop"); })"""


def take(looker: Looker, folder: Path, names: list[str]) -> None:
    """One picture of each page, in each width, light and dark."""
    for name in names or list(SIGHTS):
        with looker.at(name) as page:
            for width, scheme in product(WIDTHS, SCHEMES):
                turn(page, scheme, width)
                page.screenshot(path=folder / f"{name}.{width}.{scheme}.png", full_page=True)


def take_for_docs(looker: Looker, folder: Path) -> None:
    """Those that docs/dashboard.md shows: the top of each page."""
    for picture, name in DOCS.items():
        with looker.at(name, width=1100, height=760) as page:
            # Where the tests happen to lie says nothing to a reader.
            page.evaluate(PATHS, str(Path(__file__).parents[2]))
            page.screenshot(path=folder / f"dashboard-{picture}.png")


def main() -> None:
    """What the module says."""
    folder, *names = sys.argv[1:] or ["--docs"]
    with tempfile.TemporaryDirectory() as place, chromium() as browser, looking(browser, Path(place)) as looker:
        if folder == "--docs":
            take_for_docs(looker, Path(__file__).parents[2] / "docs" / "images")
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        take(looker, Path(folder), names)


if __name__ == "__main__":
    main()
