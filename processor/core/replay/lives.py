"""The job that a replayed job becomes. Pure.

With a new id it is a job of its own: a digest of the replay's name and the old id, so however often it is sent it is
one job, and linked to the old one by `redriven_from`. It has no parent: nobody waits for it.

With its own id it begins its next life, in its own number; from the checkpoint it goes on with the children that it
has. In another namespace it keeps its life too: what that namespace has run within its dedupe window does not run there
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from processor.broker.base import OutRecord
from processor.core.dedupe import replayed_id
from processor.core.redrive import life_begun, renewed
from processor.core.replay.spec import Spec
from processor.job import Carried, Job, Lane

if TYPE_CHECKING:
    from processor.core.replay.history import Chosen


def origin(namespace: str, job: Chosen) -> str:
    """What a replayed job is linked to."""
    return f"{namespace}/{job.queue}/{job.id}@{job.life}"


def replayed(job: Job, chosen: Chosen, spec: Spec, name: str, carried: Carried | None, now_ms: int) -> Job:
    """The new job.

    Args:
        job: its newest record.
        chosen: what is known of it.
        spec: of the replay.
        name: of the replay.
        carried: what it had saved; None: it begins at the beginning.
        now_ms: milliseconds since the epoch.
    """
    if carried is not None and (spec.moves or not spec.same_ids):
        # The old job's children are not those of the new one, nor are they known elsewhere.
        carried = None if carried.progress is None else carried._replace(children=None)
    new = renewed(job, now_ms)._replace(
        queue=spec.to_queue or chosen.queue,
        number=None,
        carried=carried,
        redriven_from=origin(spec.namespace, chosen),
        children_life=0,
    )
    if not spec.same_ids:
        new_id = replayed_id(name, spec.namespace, chosen.queue, chosen.id)
        return new._replace(id=new_id, life=1, parent=None, parent_life=0)
    if spec.moves:
        return new._replace(parent=None, parent_life=0)
    children_life = job.children_life or job.life if spec.from_checkpoint else 0
    return new._replace(life=job.life + 1, number=chosen.number, children_life=children_life)


def sent(job: Job, spec: Spec, by: str, reason: str) -> Sequence[OutRecord]:
    """The records that begin it: its status, and the job in its lane."""
    note = f"replayed from {job.redriven_from} by {by}" + (f": {reason}" if reason else "")
    return life_begun(spec.target, job, Lane(spec.lane), note)
