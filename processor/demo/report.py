"""The reckoning: what was promised, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """The result of one demonstration; `--json` writes exactly this, and `ok`."""

    published: int
    """Jobs."""
    finished: int
    """Jobs that succeeded."""
    lost: int
    """Jobs without an end."""
    failed: int
    """Jobs that ended without success."""
    doubled: int
    """Effects that took place twice, in spite of their idempotency key."""
    effects: int
    """Effects in the ledger."""
    effects_expected: int
    """One per counting job, one per file that the walk completed, and the step that must not run twice."""
    effects_asked_again: int
    """Effects asked for again after a crash, which their key kept out."""
    once_runs: int
    """Runs of the step that must not run twice."""
    retried: int
    """Mails that were sent in a second attempt."""
    retried_expected: int
    rows_imported_twice: int
    """Of the import that died, was redriven and went on where it had failed."""
    totals_equal: bool
    """Whether every count and the digest of all lines agree with a plain sequential count."""
    resume_seconds: float | None
    """From SIGKILL to the first line handled again."""
    takeover_seconds: float | None
    """From the moment of the freeze until another worker went on with the frozen one's job."""
    items: int
    """Lines of the walk."""
    items_redone: int
    """Lines that were handled more than once."""
    identifiers: int
    """Counted in whole files."""
    not_python: int
    """Files that do not tokenise."""
    seconds: float
    """The whole demonstration, downloads left out."""

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.failures()

    def failures(self) -> list[str]:
        """The promises that were not kept, in words."""
        checks = {
            f"{self.lost} jobs were lost": self.lost,
            f"{self.failed} jobs failed": self.failed,
            f"{self.doubled} effects happened twice": self.doubled,
            f"{self.effects_expected - self.effects} effects are missing": self.effects_expected - self.effects,
            f"the step that must not run twice ran {self.once_runs} times": self.once_runs - 1,
            f"{self.retried} mails were tried again instead of {self.retried_expected}": self.retried
            != self.retried_expected,
            f"{self.rows_imported_twice} rows were imported twice": self.rows_imported_twice,
            "the totals differ from the plain count": not self.totals_equal,
            "no job was seen to go on after the kill": self.resume_seconds is None,
            "no job was seen to go on after the freeze": self.takeover_seconds is None,
        }
        return [text for text, wrong in checks.items() if wrong]

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what, value, remark."""
        again = f"{self.effects_asked_again} were asked for again; the key kept them out"
        share = 100 * self.items_redone / max(1, self.items)
        return [
            ("jobs published", f"{self.published:,}", ""),
            ("jobs finished", f"{self.finished:,}", f"{self.not_python} files are not Python, and said so"),
            ("jobs lost", f"{self.lost:,}", _verdict(self.lost == 0)),
            ("effects in the ledger", f"{self.effects:,}", f"of {self.effects_expected:,} expected"),
            ("effects doubled", f"{self.doubled:,}", f"{_verdict(self.doubled == 0)}; {again}"),
            ("runs of the `once` step", f"{self.once_runs}", _verdict(self.once_runs == 1)),
            ("mails tried again", f"{self.retried}", _verdict(self.retried == self.retried_expected)),
            (
                "rows imported twice",
                f"{self.rows_imported_twice}",
                f"{_verdict(not self.rows_imported_twice)}; the import died, was redriven and went on",
            ),
            ("kill -9 to the next line", _seconds(self.resume_seconds), "SIGKILL until the walk went on"),
            ("freeze to the next line", _seconds(self.takeover_seconds), "a session of 10 s, then another worker"),
            ("lines redone", f"{self.items_redone:,}", f"{share:.2f} % of {self.items:,}"),
            (
                "totals equal",
                "yes" if self.totals_equal else "NO",
                f"{self.identifiers:,} identifiers; the digest of all lines",
            ),
            ("seconds", f"{self.seconds:.0f}", "without downloads"),
        ]

    def print(self) -> None:
        """The table, on stdout."""
        rows = self.rows()
        names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
        for name, value, remark in rows:
            click.echo(f"   {name.ljust(names)}  {value.rjust(values)}  {remark}".rstrip())

    def write(self, path: Path) -> None:
        """As one JSON object."""
        path.write_text(json.dumps({**asdict(self), "ok": self.ok}, indent=2) + "\n", "utf-8")


def _verdict(kept: bool) -> str:
    return "as promised" if kept else "BROKEN PROMISE"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
