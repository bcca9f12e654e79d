"""Where the jobs of a number are: parked ones are looked at by the clock, by wish, and by their newest record alone."""

from __future__ import annotations

from processor.engine.partition_jobs import RECENT, Parked, Recent


def test_parked_jobs_are_due_by_the_clock_or_when_somebody_wants_them_looked_at() -> None:
    parked = Parked()
    parked.put("soon", 100)
    parked.put("later", 200)
    parked.put("never", None)
    parked.put("wanted", None, wanted=True)
    assert set(parked.due(99)) == {"wanted"}
    assert set(parked.due(100)) == {"soon", "wanted"}
    parked.look_at("never")
    assert set(parked.due(0)) == {"never", "wanted"}
    parked.look_at_all()
    assert set(parked.due(0)) == {"soon", "later", "never", "wanted"}


def test_a_parked_job_is_looked_at_by_the_record_that_parked_it_last() -> None:
    parked = Parked()
    parked.put("j", 100, wanted=True, written=(2, 7))
    assert not parked.looked_at("j", (2, 6)), "how it was before it was parked once more"
    assert set(parked.due(0)) == {"j"}
    assert parked.looked_at("j", (2, 7))
    assert set(parked.due(0)) == set()
    assert parked.looked_at("j", (1, 1)), "any record is as new as what is known"


def test_a_job_that_leaves_is_wanted_no_more() -> None:
    parked = Parked()
    parked.put("gone", 0, wanted=True, written=(9, 9))
    parked.put("stays", 0)
    due = parked.due(1)
    parked.leave("gone")
    assert list(due) == ["stays"], "the table may change while it is looked at"
    assert ("gone" in parked, len(parked)) == (False, 1)
    parked.put("gone", 0)
    assert parked.looked_at("gone", (1, 1)), "nothing of the first time is left"


def test_jobs_that_ended_lately_are_remembered_and_the_oldest_forgotten() -> None:
    recent = Recent()
    for place in range(3 * RECENT):
        recent.add(f"j{place}", 1, place)
    assert all(f"j{place}" in recent for place in range(2 * RECENT, 3 * RECENT))
    assert (recent.get(f"j{3 * RECENT - 1}"), recent.get("j0"), "j0" in recent) == ((1, 3 * RECENT - 1), (0, 0), False)
