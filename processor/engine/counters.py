"""Plain counters of the owning thread. The metrics read them when scraped; counting a job costs one addition."""

from __future__ import annotations

from collections import Counter


class Counters:
    """What happened since the start. Only the owning thread writes; readers see a moment."""

    def __init__(self) -> None:
        self.finished: Counter[tuple[str, str, str]] = Counter()
        """By (queue, job type, outcome)."""
        self.run_seconds: dict[str, list[float]] = {}
        """Durations by job type since the last scrape of the histogram."""
        self.wait_seconds: dict[str, list[float]] = {}
        """From due to handed out, by queue: of the first attempt of each hand-out."""
        self.events: Counter[str] = Counter()
        """Everything else, by name: `flush.committed`, `rebalance.assigned`, `dropped_copies`, ..."""
        self.flush_seconds: list[float] = []
        self.flush_records: list[float] = []
        self.restore_seconds: list[float] = []

    def ran(self, job_type: str, seconds: float) -> None:
        """A handler ran this long."""
        durations = self.run_seconds.get(job_type)
        if durations is None:
            durations = self.run_seconds[job_type] = []
        if len(durations) < _SAMPLES:
            durations.append(seconds)

    def waited(self, queue: str, seconds: float) -> None:
        """A job of this queue was due this long before it was handed out."""
        self.sample(self.wait_seconds.setdefault(queue, []), seconds)

    def sample(self, samples: list[float], value: float) -> None:
        """Keep a value for the next scrape, within bounds: nobody may be scraping."""
        if len(samples) < _SAMPLES:
            samples.append(value)


_SAMPLES = 10_000
