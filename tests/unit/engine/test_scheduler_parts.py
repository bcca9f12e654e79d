"""The parts of the scheduler by themselves, on a memory log: taking over, firing, and knowing which runs have ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from processor.broker.base import OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.clock import ManualClock
from processor.core.schedules import FIRED, ScheduleTable
from processor.core.topic_plan import topic_plan
from processor.engine.config import WorkerConfig
from processor.engine.counters import Counters
from processor.engine.firing import Firing
from processor.engine.leadership import FETCH, Leadership
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.runs import RunWatch
from processor.errors import RecordRefused
from processor.job_ids import scheduled_id
from processor.states import State
from processor.wire.codec import decode, decode_job, encode
from processor.wire.headers import is_derived
from processor.wire.records import ScheduleFired, ScheduleRecord, StatusRecord
from processor.wire.topics import QueueSpec, TopicShape

NS = "parts"
AT = 1_767_225_600_000
PLACE = TopicPartition(f"{NS}.schedules", 0)
CONFIG = WorkerConfig(namespace=NS, slot="w-0", queues=(), static=False)
PLAN = ScheduleRecord("tick", "nap", "q", 1, b"1", AT, "ada@desk", AT, every=1_000)


class Bench:
    """A log with topics, and a leader."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        plan = topic_plan(NS, [QueueSpec(name="q", partitions=2)], shape=TopicShape(status_partitions=1))
        self.broker.admin().create_topics([TopicSpec(name=t.name, partitions=t.partitions) for t in plan])
        self.clock = ManualClock(AT)
        self.counters = Counters()
        self.firing = Firing(self.broker, CONFIG, self.clock, self.counters)
        dead_slots = DeadSlots(self.broker, CONFIG, CONFIG.schedulers, CONFIG.scheduler_id)
        self.lead = Leadership(self.broker, CONFIG, dead_slots, PLACE, 1)

    def write(self, *records: OutRecord) -> None:
        producer = self.broker.producer()
        for record in records:
            producer.append(record)
        assert producer.flush(1) == 0
        producer.close()

    def status(self, job_id: str, state: State) -> None:
        value = encode(StatusRecord(job_id, 1, "nap", "q", state, AT, 1, "w-0"))
        self.write(OutRecord(f"{NS}.status", job_id.encode(), value))

    def close(self) -> None:
        self.firing.end()
        self.lead.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def fired(seconds: int) -> OutRecord:
    record = ScheduleFired("tick", AT + seconds * 1000, AT + seconds * 1000, "w-1")
    return OutRecord(PLACE.topic, f"tick{FIRED}".encode(), encode(record))


def test_a_new_leader_reads_to_the_end_of_what_was_there(bench: Bench) -> None:
    bench.write(OutRecord(PLACE.topic, b"tick", encode(PLAN)), *(fired(second) for second in range(FETCH + 500)))
    seen = []
    for last in (FETCH + 501, FETCH + 502):
        bench.lead.read(0.0)
        seen.append(bench.lead.caught_up)
        bench.write(fired(last))
    assert seen == [False, True]
    assert bench.lead.table.standings["tick"].after == AT + (FETCH + 501) * 1000


def test_what_is_done_is_told_after_what_does_it(bench: Bench) -> None:
    bench.write(OutRecord(PLACE.topic, b"tick", encode(PLAN._replace(overlap="queue", key="schedule tick"))))
    bench.lead.read(0.0)
    bench.clock.advance(3.0)
    load = bench.lead.load(CONFIG.schedulers)
    bench.firing.fill(load, bench.lead.table)
    assert [record.topic for record in load.creates] == [f"{NS}.jobs.q"] * 3
    assert [record.topic for record in load.announces] == [PLACE.topic]
    jobs = [decode_job(record.value or b"") for record in load.creates]
    assert [job.id for job in jobs] == [scheduled_id("tick", AT + at * 1000) for at in (1, 2, 3)]
    assert {(job.key, job.type, job.payload) for job in jobs} == {("schedule tick", "nap", b"1")}
    assert all(is_derived(record.headers) for record in load.creates)
    (told,) = (decode(record.value or b"") for record in load.announces)
    assert told == ScheduleFired("tick", AT + 3_000, AT + 3_000, "w-0", jobs[-1].id, AT + 3_000, 3, 0)
    assert [commit.partition for commit in load.offsets] == [PLACE]


def test_a_load_that_failed_is_filled_again_and_one_that_is_refused_is_held(bench: Bench) -> None:
    bench.write(OutRecord(PLACE.topic, b"tick", encode(PLAN)))
    bench.lead.read(0.0)
    bench.clock.advance(1.0)
    first, second, third = (bench.lead.load(CONFIG.schedulers) for _ in range(3))
    bench.firing.fill(first, bench.lead.table)
    bench.firing.failed(first, {})
    bench.firing.fill(second, bench.lead.table)
    assert [record.value for record in second.creates] == [record.value for record in first.creates]
    bench.firing.failed(second, {id(second.creates[0]): RecordRefused("too large")})
    bench.firing.fill(third, bench.lead.table)
    assert not third.says_something
    assert bench.counters.events["schedules.held"] == 1
    bench.clock.advance(31.0)
    again = bench.lead.load(CONFIG.schedulers)
    bench.firing.fill(again, bench.lead.table)
    assert again.says_something


def test_a_removed_schedule_is_buried(bench: Bench) -> None:
    table = ScheduleTable()
    table.apply(f"tick{FIRED}".encode(), fired(1).value)
    bench.lead.read(0.0)
    load = bench.lead.load(CONFIG.schedulers)
    bench.firing.fill(load, table)
    assert load.announces == [OutRecord(PLACE.topic, f"tick{FIRED}".encode(), None)]
    bench.firing.done(load, table)
    assert not table.orphans()


def test_an_answer_waits_for_what_was_committed_when_it_was_asked(bench: Bench) -> None:
    runs = RunWatch(bench.broker, NS)
    runs.follow("tick", "job-1", None)
    assert runs.is_over("tick", "job-1", AT) is False, "nothing of it is there"
    bench.status("job-1", State.RUNNING)
    bench.status("job-1", State.SUCCEEDED)
    assert runs.is_over("tick", "job-1", AT) is None
    while runs.read():
        pass
    assert runs.is_over("tick", "job-1", AT) is True
    runs.close()


def test_a_run_that_another_leader_started_is_looked_for_from_its_time_on(bench: Bench) -> None:
    bench.status("job-1", State.DEAD)
    bench.status("job-2", State.RUNNING)
    runs = RunWatch(bench.broker, NS)
    for job_id, over in (("job-1", True), ("job-2", False), ("job-1", True)):
        assert runs.is_over("tick", job_id, AT) is None
        while runs.read():
            pass
        assert runs.is_over("tick", job_id, AT) is over
    runs.close()


def test_a_partition_is_read_only_while_one_of_its_runs_goes_on(bench: Bench) -> None:
    runs = RunWatch(bench.broker, NS)
    runs.follow("tick", "job-1", None)
    runs.follow("tock", "job-2", None)
    bench.status("job-1", State.CANCELLED)
    assert runs.read() == 1
    bench.status("job-2", State.SUCCEEDED)
    assert runs.read() == 1
    bench.status("job-3", State.SUCCEEDED)
    assert runs.read() == 0, "nobody asks for it"
    assert (runs.is_over("tick", "job-1", AT), runs.is_over("tock", "job-2", AT)) == (True, True)
    runs.close()
