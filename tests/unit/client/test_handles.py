"""Values that handles give: how far a job is, and many jobs that were enqueued together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.client.handles import Enqueued, Handle, JobProgress
from processor.client.status import StatusTail
from processor.errors import DefinitionError
from processor.job_ids import uuid7


@pytest.mark.parametrize(
    ("done", "total", "fraction"),
    [
        (None, None, None),
        (3.0, None, None),
        (None, 4.0, None),
        (3.0, 0.0, None),  # of nothing
        (3.0, 4.0, 0.75),
        (0.0, 4.0, 0.0),
        (5.0, 4.0, 1.0),
        (-1.0, 4.0, 0.0),
        (1e308, 1e-308, 1.0),
    ],
)
def test_a_fraction_lies_between_nothing_and_all(
    done: float | None, total: float | None, fraction: float | None
) -> None:
    assert JobProgress(done=done, total=total).fraction == fraction


def no_tail() -> StatusTail:
    raise AssertionError("nobody asked the log")


def handle(job_id: str) -> Handle[None]:
    return Handle(job_id, no_tail, lambda data: None)


IDS = st.lists(st.builds(uuid7, st.integers(0, 2**48 - 1)) | st.text("abc-", min_size=1), max_size=8)


@given(IDS, st.slices(8))
def test_many_jobs_are_a_sequence_of_their_handles(ids: list[str], part: slice) -> None:
    """Fresh ids are kept in 16 bytes each, and come back as they were."""
    chosen = any(len(each) != 36 for each in ids)
    made: Enqueued[None] = Enqueued(handle)
    for job_id in ids:
        made.add(job_id, chosen=chosen)
    assert (len(made), list(made.ids)) == (len(ids), ids)
    assert [each.id for each in made] == ids
    assert [each.id for each in made[part]] == ids[part]
    assert [made[place].id for place in range(-len(ids), len(ids))] == [*ids, *ids]
    for beyond in (len(ids), -len(ids) - 1):
        with pytest.raises(IndexError):
            made[beyond]
    assert repr(made) == f"<{len(ids)} enqueued jobs>"


def test_a_handle_that_was_made_by_hand_cannot_cancel() -> None:
    with pytest.raises(DefinitionError, match="job j was made by hand") as caught:
        handle("j").cancel()
    assert caught.value.hint == "use app.handle(id)"
    assert repr(handle("j")) == "Handle('j')"
