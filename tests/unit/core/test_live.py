"""The live table is the same whatever compaction did, and its hint never passes what is not committed elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.checkpoint import NUMBER_KEY, KeyKind, SavedRecord, parse_key, signal_key
from processor.core.live import LiveTable, LiveView, job_key, progress_key, step_key
from processor.core.window import Window
from processor.errors import UndecodableRecord
from processor.job import Version
from processor.wire.records import CheckpointRecord, LiveJobRecord, StepRecord

quick = settings(max_examples=100, derandomize=True, deadline=None)

LANE = "shop.jobs.bulk"
CHECKPOINTS = "shop.checkpoints.bulk"
FIRST = Version(1, 0, 1, 1)


class Entry(NamedTuple):
    """A record of a checkpoint partition; `record` None is a tombstone."""

    offset: int
    key: bytes
    record: SavedRecord | None

    @property
    def value(self) -> bytes:
        return repr(self.record).encode()


def progress(
    job_id: str, version: Version = FIRST, *, home: int = 5, topic: str = LANE, final: bytes | None = None
) -> CheckpointRecord:
    return CheckpointRecord(job_id, *version, 0, topic, home, 1, final=final)


def step(job_id: str, name: str, version: Version = FIRST) -> StepRecord:
    return StepRecord(job_id, *version, name, "finished")


def live_job(job_id: str, version: Version = FIRST) -> LiveJobRecord:
    return LiveJobRecord(job_id, *version, b"job", LANE, 5, 0)


def key_of(record: SavedRecord) -> bytes:
    if isinstance(record, CheckpointRecord):
        return progress_key(record.id)
    return step_key(record.id, record.name) if isinstance(record, StepRecord) else job_key(record.id)


def fold(log: list[Entry]) -> LiveTable:
    table = LiveTable()
    for entry in log:
        if entry.record is None:
            table.remove(entry.key)
        else:
            table.put(entry.key, entry.value, entry.offset, entry.record)
    return table


def views(table: LiveTable) -> dict[str, LiveView | None]:
    return {job_id: table.view(job_id) for job_id in sorted(table.ids())}


def table_of(*records: SavedRecord) -> LiveTable:
    return fold([Entry(offset, key_of(record), record) for offset, record in enumerate(records)])


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """What owners one after the other wrote: versions grow with the offset."""
    log: list[Entry] = []
    life, hop, epoch = 1, 0, 1
    for offset in range(draw(st.integers(0, 25))):
        what = draw(st.sampled_from(["progress", "end", "step", "job", "tombstone", "life", "hop", "epoch"]))
        job_id = draw(st.sampled_from("ab"))
        if what in ("life", "hop", "epoch"):
            life, hop = life + (what == "life"), 0 if what == "life" else hop + (what == "hop")
            epoch += 1
        elif what == "tombstone" and log:
            log.append(Entry(offset, draw(st.sampled_from(log)).key, None))
        else:
            version = Version(life, hop, epoch, offset)
            record: SavedRecord = progress(job_id, version, final=b"end" if what == "end" else None)
            if what == "step":
                record = step(job_id, draw(st.sampled_from(["s", "t#/"])), version)
            elif what == "job":
                record = live_job(job_id, version)
            log.append(Entry(offset, key_of(record), record))
    return log


def compacted(log: list[Entry], draw: st.DrawFn) -> list[Entry]:
    """Without some records that have a later one of their key, and some tombstones that hide nothing any more."""
    last = {entry.key: entry.offset for entry in log}
    left = [entry for entry in log if entry.offset == last[entry.key] or draw(st.booleans())]
    kept: list[Entry] = []
    for entry in left:
        hides = any(other.key == entry.key for other in kept)
        if entry.record is not None or hides or draw(st.booleans()):
            kept.append(entry)
    return kept


@given(st.data())
@quick
def test_compaction_changes_nothing(data: st.DataObject) -> None:
    log = data.draw(logs())
    shrunk = st.composite(lambda draw: compacted(log, draw))
    assert views(fold(data.draw(shrunk()))) == views(fold(log))


@given(st.data())
@quick
def test_a_stale_owners_late_write_changes_nothing_and_is_written_over_before_it_can(data: st.DataObject) -> None:
    log = data.draw(logs())
    kept = [entry for entry in log if entry.record is not None]
    if not kept:
        return
    stale = data.draw(st.sampled_from(kept))
    late = stale._replace(offset=100)
    before, after = fold(log), fold([*log, late])
    tombstoned = stale.key not in {key for job_id in before.ids() for key in before.keys_of(job_id)}
    newer = any(entry.key == stale.key and entry.offset > stale.offset and entry.record for entry in log)
    if tombstoned or not newer:
        return
    assert views(after) == views(before)
    ((key, value),) = after.carry_candidates(101)
    assert key == stale.key
    winner = next(entry for entry in reversed(log) if entry.key == key and entry.value == value)
    repaired = [*log, late, winner._replace(offset=101)]
    shrunk = st.composite(lambda draw: compacted(repaired, draw))
    assert views(fold(data.draw(shrunk()))) == views(before)


def test_steps_stay_valid_through_hops_and_epochs_but_not_through_lives() -> None:
    table = table_of(progress("a"), step("a", "head"), step("a", "tail", Version(1, 1, 4, 1)))
    view = table.view("a")
    assert view
    assert (view.life, view.hop, list(view.steps)) == (1, 1, ["head", "tail"])
    assert view.progress
    table.put(progress_key("a"), b"2", 9, progress("a", Version(2, 0, 4, 2)))
    view = table.view("a")
    assert view
    assert (view.life, view.progress, view.steps) == (2, b"2", {})


def test_a_job_that_has_moved_on_does_not_live_here_any_more() -> None:
    view = table_of(live_job("a"), progress("a", Version(1, 1, 1, 2))).view("a")
    assert view
    assert view.job is None
    assert view.progress


def test_a_tombstone_removes_exactly_its_key() -> None:
    table = table_of(progress("a"), step("a", "s"), step("a", "s/t"), live_job("a"))
    table.put(signal_key("a", "child-1"), b"signal", 9)
    table.remove(step_key("a", "s"))
    view = table.view("a")
    assert view
    assert list(view.steps) == ["s/t"]
    assert view.signals == {"child-1": b"signal"}
    assert table.live_records == 4
    assert table.keys_of("a")[-1] == progress_key("a"), "destroyed last, or its steps would have no home"
    for key in table.keys_of("a"):
        table.remove(key)
    assert (table.view("a"), "a" in table, len(table), table.hint) == (None, False, 0, None)


def test_a_step_tombstone_of_an_unknown_job_is_nothing() -> None:
    table = table_of(progress("a"))
    table.remove(step_key("b", "s"))
    table.remove(step_key("a", "s"))
    assert list(table.ids()) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
@quick
def test_the_hint_is_the_lowest_bound(actions: list[tuple[str, bool]]) -> None:
    table, bounds = LiveTable(), dict[str, int]()
    for offset, (job_id, remove) in enumerate(actions):
        if remove:
            table.remove(progress_key(job_id))
            bounds.pop(job_id, None)
        else:
            table.put(progress_key(job_id), b"", offset, progress(job_id, Version(1, 0, 1, offset)))
            bounds[job_id] = offset
        assert table.hint == min(bounds.values(), default=None)
        assert table.live_records == len(table) == len(bounds)


def test_hint_never_passes_an_uncommitted_carry() -> None:
    table = table_of(progress("old"), *(progress("new", Version(1, 0, 1, 1 + n)) for n in range(20)))
    assert table.carry_candidates(21, budget=50) == []
    chosen = table.carry_candidates(21, budget=10)
    assert [key for key, _ in chosen] == [b"old"]
    assert table.hint == 0, "the copy is written, but its flush may still be torn"
    table.carried(b"old", 21)
    assert table.hint == 20
    assert table.carry_candidates(22, budget=10) == []


def test_a_carry_that_was_overtaken_changes_nothing() -> None:
    table = table_of(progress("a"), progress("b"))
    table.put(b"a", b"newer", 30, progress("a", Version(1, 0, 1, 9)))
    table.carried(b"a", 20)
    table.carried(b"gone", 20)
    assert table.hint == 1
    table.remove(b"b")
    assert table.hint == 30


@given(st.integers(1, 200), st.integers(0, 500), st.integers(0, 300))
@quick
def test_carrying_brings_a_restore_back_under_its_budget(live: int, history: int, budget: int) -> None:
    table = table_of(*(progress(f"job-{n}") for n in range(live)))
    end = live + history
    for key, _ in table.carry_candidates(end, budget):
        table.carried(key, end)
        end += 1
    assert table.hint is not None
    assert end - table.hint <= budget + 2 * live + 2 * live, "what was carried is read again too"


def test_a_copy_that_was_carried_forward_takes_the_place_of_its_original() -> None:
    table = table_of(progress("a"), progress("b"), progress("a"))
    assert table.hint == 1
    assert table.carry_candidates(3) == []


def test_a_lower_bound_is_refused() -> None:
    table = table_of(progress("a"), progress("b"))
    with pytest.raises(ValueError, match="lower"):
        table.put(b"c", b"", 0, progress("c"))
    with pytest.raises(ValueError, match="decoded"):
        table.put(b"c", b"", 5)


def test_homeless_are_those_whose_lane_record_is_complete_and_that_live_nowhere_else() -> None:
    table = table_of(
        progress("complete", home=5),
        progress("incomplete", home=6),
        progress("unread", home=9),
        progress("promoted", home=5),
        live_job("promoted"),
        progress("parked", home=-1, topic=CHECKPOINTS),
        progress("retrying", home=5, topic="shop.retry.5s"),
        progress("ended", home=5, final=b"end"),
        progress("ended-unfinished", home=6, final=b"end"),
        progress("ended-here", home=-1, topic=CHECKPOINTS, final=b"end"),
        step("orphan", "s"),
    )
    window = Window(0)
    window.add_many([5, 6])
    window.complete(5)
    windows = {LANE: window}
    assert table.homeless(windows) == ["complete"]
    assert table.ended(windows) == ["ended", "ended-here"]
    assert table.orphans() == ["orphan"]
    assert table.homeless({}) == []


@given(st.text(min_size=1).filter(lambda text: "#" not in text), st.text())
@quick
def test_keys_read_back(job_id: str, rest: str) -> None:
    assert parse_key(progress_key(job_id)) == (KeyKind.PROGRESS, job_id, "")
    assert parse_key(job_key(job_id)) == (KeyKind.JOB, job_id, "")
    assert parse_key(step_key(job_id, rest)) == (KeyKind.STEP, job_id, rest)
    assert parse_key(signal_key(job_id, rest)) == (KeyKind.SIGNAL, job_id, rest)


@given(st.binary())
@quick
def test_a_foreign_key_is_named(key: bytes) -> None:
    try:
        parsed = parse_key(key)
    except UndecodableRecord:
        return
    assert parsed.id or key == NUMBER_KEY


@pytest.mark.parametrize("key", [b"", b"#job", b"a#", b"a#jobs", b"a#step", b"\xff"])
def test_foreign_keys_are_refused(key: bytes) -> None:
    with pytest.raises(UndecodableRecord):
        parse_key(key)


@pytest.mark.parametrize("job_id", ["", "a#b"])
def test_an_id_with_a_hash_has_no_key(job_id: str) -> None:
    with pytest.raises(ValueError, match="job id"):
        progress_key(job_id)
