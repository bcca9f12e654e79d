"""What jobs had saved: in the checkpoint topic while they are live, in their dead letter, or in their own record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from processor.admin.dead_letters import LetterFilter, LetterRow, list_letters, read_letters
from processor.admin.lag import live_jobs
from processor.broker.base import Broker
from processor.core.live import LiveView
from processor.core.replay.history import Chosen
from processor.core.replay.spec import Spec
from processor.job import Carried, Job


class Saved:
    """The last checkpoints of the jobs of a replay. One that succeeded has none: nothing of it was worth keeping."""

    def __init__(self, broker: Broker, spec: Spec, jobs: Sequence[Chosen]) -> None:
        self._broker = broker
        self._namespace = spec.namespace
        self._live: dict[tuple[str, str], LiveView] = {}
        self._letters: dict[tuple[str, str, int], LetterRow] = {}
        if not spec.from_checkpoint or not jobs:
            self._wanted = False
            return
        self._wanted = True
        ids = frozenset(job.id for job in jobs)
        for queue in sorted({job.queue for job in jobs}):
            for _, view in live_jobs(broker, spec.namespace, queue):
                if view.id in ids:
                    self._live[queue, view.id] = view
        for row in list_letters(broker, spec.namespace, LetterFilter(names=ids)):
            self._letters[row.queue, row.id, row.life] = row

    def load(self, jobs: Sequence[Chosen], records: Mapping[str, Job]) -> dict[str, Carried]:
        """What these jobs take along, by `Chosen.name`; those that had saved nothing are left out.

        Args:
            jobs: some of the replay's.
            records: their newest records, by name.
        """
        if not self._wanted:
            return {}
        found: dict[str, Carried] = {}
        wanted = {}
        for job in jobs:
            letter = self._letters.get((job.queue, job.id, job.life))
            if letter is not None:
                wanted[letter.address] = job
        rows = [self._letters[job.queue, job.id, job.life] for job in wanted.values()]
        for row, letter_record in read_letters(self._broker, self._namespace, rows) if rows else ():
            progress, children = letter_record.progress, letter_record.children
            if progress is not None or children:
                steps = letter_record.steps if progress is not None else None
                found[wanted[row.address].name] = Carried([], progress, steps, children)
        for job in jobs:
            if job.name not in found:
                carried = self._of(job, records.get(job.name))
                if carried is not None:
                    found[job.name] = carried
        return found

    def _of(self, job: Chosen, record: Job | None) -> Carried | None:
        carried = None if record is None else record.carried
        view = self._live.get((job.queue, job.id))
        if view is not None and view.life == job.life and not view.ended and view.progress is not None:
            children = None if carried is None else carried.children
            return Carried([], view.progress, list(view.steps.values()), children)
        return None if carried is None else carried._replace(failures=[])
