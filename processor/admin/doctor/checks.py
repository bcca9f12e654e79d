"""The checks of the doctor, in the order in which they run. They read and change nothing.

What can be seen from outside is what the log and the group say: a number that a worker holds back is seen by its
oldest job, an open transaction by the records behind it that stay hidden. Clocks can only be compared with timestamps
of recent records, since asking a broker for its time would need a write.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from processor import admin
from processor.admin import LaneLag
from processor.admin.doctor.subject import DoctorContext, Finding, Verdict
from processor.broker.base import Broker, Isolation, TopicPartition
from processor.core.topic_plan import Severity, compare
from processor.errors import ProcessorError
from processor.job import Lane
from processor.texts import count
from processor.wire import topics
from processor.wire.durations import span
from processor.wire.groups import slot_of

OLD = 300.0
"""Seconds after which an unstarted job makes a warning. Running ones leave their lane after seconds: they do not count.
"""
SKEW = 5.0
"""Seconds that a record may lie in the future."""
RECENT = 60.0
"""Seconds up to which the newest record says something about clocks."""
OPEN = 2.0
"""Seconds after which a transaction is open for too long: a flush takes milliseconds."""
COUNTED = 10_000
"""Offsets of the dead-letter topic up to which its records are counted one by one."""
_PEEK = 5.0
"""Seconds to read the oldest waiting records."""
_NAMED = 5
"""How many names a line lists."""


def check_broker(patient: DoctorContext) -> Iterator[Finding]:
    """Whether the cluster answers, and how large it is."""
    began = time.perf_counter()
    cluster = patient.broker.admin().cluster()
    took = time.perf_counter() - began
    text = f"cluster {cluster.cluster_id} with {count(cluster.brokers, 'broker')} answered within {1000 * took:.0f} ms"
    details = {"cluster": cluster.cluster_id, "brokers": cluster.brokers}
    if cluster.brokers < 3:
        yield Finding(
            check="broker",
            verdict=Verdict.WARN,
            text=text,
            hint="fine for development; with fewer than three, a lost broker stops work or loses jobs",
            details=details,
        )
    else:
        yield Finding(check="broker", verdict=Verdict.OK, text=text, details=details)


def check_topics(patient: DoctorContext) -> Iterator[Finding]:
    """Whether all topics are there and as planned."""
    if not patient.has_code and not patient.lanes:
        yield Finding(
            check="topics",
            verdict=Verdict.FAIL,
            text=f"namespace {patient.app.namespace} has no queues on this cluster",
            hint="is the namespace right? processor topics apply --app MODULE:APP creates its topics",
            exit_code=4,
        )
        return
    differences = compare(patient.plan, patient.topics)
    for severity, verdict in ((Severity.REFUSE, Verdict.FAIL), (Severity.WARN, Verdict.WARN)):
        found = [difference for difference in differences if difference.severity is severity]
        if found:
            yield Finding(
                check="topics",
                verdict=verdict,
                text=_several([difference.text for difference in found], separator="; "),
                hint="processor topics plan shows what apply would do",
                exit_code=4,
                details={"differences": [difference.text for difference in found]},
            )
    if not differences:
        yield Finding(check="topics", verdict=Verdict.OK, text=f"{len(patient.plan)} topics are as planned")


def check_replicas(patient: DoctorContext) -> Iterator[Finding]:
    """Whether an acknowledged record survives the loss of a broker."""
    single = sorted(name for name, info in patient.topics.items() if info.replication < 2)
    lax = sorted(
        name
        for name, info in patient.topics.items()
        if info.replication >= 2 and int(info.config.get("min.insync.replicas", "1")) < 2
    )
    if single:
        yield Finding(
            check="replicas",
            verdict=Verdict.WARN,
            text=f"{len(single)} of {len(patient.topics)} topics have one replica: a lost disk loses their jobs",
            hint="in production set topics.replication = 3 before the first topics apply",
            details={"topics": single},
        )
    if lax:
        yield Finding(
            check="replicas",
            verdict=Verdict.WARN,
            text=f"{len(lax)} topics set no min.insync.replicas: one replica alone may acknowledge a job",
            hint="unless the brokers' default is 2, set topics.replication = 3, then: processor topics apply",
            details={"topics": lax},
        )
    if not single and not lax and patient.topics:
        least = min(info.replication for info in patient.topics.values())
        yield Finding(check="replicas", verdict=Verdict.OK, text=f"at least {least} replicas, 2 of them in sync")


def check_clocks(patient: DoctorContext) -> Iterator[Finding]:
    """Whether recent records lie in the future of this machine's clock."""
    status = topics.status_topic(patient.app.namespace)
    if status not in patient.topics:
        return
    newest = max((record.timestamp()[1] for record in admin.tail(patient.broker, [status], count=10)), default=None)
    ago = None if newest is None else (patient.now_ms - newest) / 1000
    if ago is not None and ago < -SKEW:
        yield Finding(
            check="clocks",
            verdict=Verdict.WARN,
            text=f"the newest status record is {-ago:.0f} s in the future of this machine's clock",
            hint="synchronise the clocks (chrony, ntpd) of workers and of this machine",
            details={"ahead_seconds": -ago},
        )
    elif ago is not None and ago < RECENT:
        text = f"the newest status record is {max(0, round(ago))} s old, none is in the future"
        yield Finding(check="clocks", verdict=Verdict.OK, text=text)
    else:
        text = "no record of the last minute to compare with"
        yield Finding(check="clocks", verdict=Verdict.UNKNOWN, text=text)


def check_workers(patient: DoctorContext) -> Iterator[Finding]:
    """Whether workers are there."""
    owned: dict[str, int] = defaultdict(int)
    for members in patient.members.values():
        for member in members:
            owned[slot_of(member.instance_id) if member.instance_id else member.client_id] += len(member.partitions)
    slots = sorted(owned)
    if not slots:
        yield Finding(
            check="workers",
            verdict=Verdict.WARN,
            text=f"no worker serves a queue of namespace {patient.app.namespace}",
            hint="processor worker MODULE:APP",
            details={"slots": []},
        )
        return
    idle = [slot for slot in slots if not owned[slot]]
    text = f"{len(slots)} in namespace {patient.app.namespace}: {_several(slots)}"
    if idle:
        text += f"; {len(idle)} of them own no number"
    yield Finding(check="workers", verdict=Verdict.OK, text=text, details={"slots": slots, "idle": idle})


def check_numbers(patient: DoctorContext) -> Iterator[Finding]:
    """Whether every number has an owner."""
    if not any(patient.members.values()):
        return
    owned = {place for members in patient.members.values() for member in members for place in member.partitions}
    missing: dict[str, list[int]] = defaultdict(list)
    total = 0
    for lag in patient.lags:
        if lag.lane is not Lane.NORMAL:
            continue
        total += 1
        if _place(patient, lag) not in owned:
            missing[lag.queue].append(lag.number)
    if not missing:
        yield Finding(check="numbers", verdict=Verdict.OK, text=f"all {total} have an owner")
    for queue, numbers in missing.items():
        listed = _several(map(str, sorted(numbers)))
        yield Finding(
            check="numbers",
            verdict=Verdict.WARN,
            text=f"{count(len(numbers), 'number')} of queue {queue} without an owner: {listed}",
            hint=f"right after a start or stop, look again; else start a worker that serves it: -q {queue}",
            details={"queue": queue, "numbers": sorted(numbers)},
        )


def check_offsets(patient: DoctorContext) -> Iterator[Finding]:
    """Whether numbers that were worked on have lost their committed offsets, or had them moved by another tool."""
    strange: list[str] = []
    for queue in patient.lanes:
        topic = topics.checkpoints_topic(patient.app.namespace, queue)
        if topic not in patient.topics:
            continue
        places = [TopicPartition(topic, number) for number in range(patient.topics[topic].partitions)]
        ends = patient.broker.admin().end_offsets(places, Isolation.COMMITTED)
        strange += [
            f"{queue}-{lag.number}"
            for lag in patient.lags
            if (lag.queue, lag.lane) == (queue, Lane.NORMAL)
            and not lag.slot
            and ends.get(TopicPartition(topic, lag.number), 0)
        ]
    if strange:
        yield Finding(
            check="offsets",
            verdict=Verdict.WARN,
            text=f"{count(len(strange), 'number')} with saved progress but no offset of ours: {_several(strange)}",
            hint="offsets expired or were moved by another tool: the next owner reads all again and runs nothing twice "
            "that it still remembers",
            details={"numbers": strange},
        )


def check_lag(patient: DoctorContext) -> Iterator[Finding]:
    """How much waits in each queue."""
    for queue in patient.lanes:
        waiting: dict[str, int] = {}
        for lag in patient.lags:
            if lag.queue == queue:
                waiting[lag.lane] = waiting.get(lag.lane, 0) + lag.waiting
        text = f"{queue}: " + ", ".join(f"{count} in {lane}" for lane, count in waiting.items())
        stuck = sum(waiting.values()) and not patient.members.get(queue)
        yield Finding(
            check="lag",
            verdict=Verdict.WARN if stuck else Verdict.OK,
            text=text + (", and no worker" if stuck else ""),
            hint="processor worker MODULE:APP" if stuck else "",
            details={"queue": queue, "waiting": waiting},
        )


def check_oldest(patient: DoctorContext) -> Iterator[Finding]:
    """Whether a job waits unstarted for very long: too few workers, or a number that is held."""
    oldest = _oldest(patient)
    if not oldest:
        return
    late = {place: seconds for place, seconds in oldest.items() if seconds >= OLD}
    if not late:
        text = f"the oldest waiting job is {span(max(oldest.values()))} old"
        yield Finding(check="oldest", verdict=Verdict.OK, text=text)
        return
    place, seconds = max(late.items(), key=lambda item: item[1])
    yield Finding(
        check="oldest",
        verdict=Verdict.WARN,
        text=f"jobs wait for long in {count(len(late), 'partition')}: {place.topic}-{place.partition}, {span(seconds)}",
        hint="add workers; if workers own them and are idle, look in their logs for number.held",
        details={f"{place.topic}-{place.partition}": round(seconds) for place, seconds in late.items()},
    )


def _place(patient: DoctorContext, lag: LaneLag) -> TopicPartition:
    return TopicPartition(topics.jobs_topic(patient.app.namespace, lag.queue, lag.lane), lag.number)


def _first_incomplete(lag: LaneLag) -> int:
    """The first offset that is not complete; the end of the lane if all are."""
    offset = lag.start
    for first, last in lag.done:
        if first > offset:
            break
        offset = max(offset, last + 1)
    return offset


def _oldest(patient: DoctorContext) -> dict[TopicPartition, float]:
    """Age in seconds of the first incomplete record of each lane partition that has one."""
    starts: dict[TopicPartition, int] = {}
    for lag in patient.lags:
        first = _first_incomplete(lag)
        if first < lag.end:
            starts[_place(patient, lag)] = first
    ages: dict[TopicPartition, float] = {}
    if not starts:
        return ages
    reader = patient.broker.reader()
    try:
        reader.assign(starts)
        deadline = time.monotonic() + _PEEK
        left = set(starts)
        while left and time.monotonic() < deadline:
            batch = reader.fetch(1000, 0.25)
            for record in batch.records:
                place = TopicPartition(record.topic() or "", record.partition() or 0)
                ages.setdefault(place, max(0.0, (patient.now_ms - record.timestamp()[1]) / 1000))
            seen = {place for place in left if place in ages} | {end.partition for end in batch.ends}
            reader.unassign(seen & left)
            left -= seen
    finally:
        reader.close()
    return ages


def check_dead_letters(patient: DoctorContext) -> Iterator[Finding]:
    """Whether dead letters wait for a person."""
    topic = topics.dlq_topic(patient.app.namespace)
    info = patient.topics.get(topic)
    if info is None:
        return
    places = [TopicPartition(topic, number) for number in range(info.partitions)]
    ends = patient.broker.admin().end_offsets(places, Isolation.COMMITTED)
    begins = patient.broker.admin().begin_offsets(places)
    # Offsets have gaps: each transaction ends with a marker, which is no dead letter. So few are counted one by one.
    letters, told = sum(ends[place] - begins[place] for place in places), "up to "
    if letters <= COUNTED:
        letters, told = sum(1 for _ in admin.tail(patient.broker, [topic], from_start=True)), ""
    if letters:
        text = f"{told}{count(letters, 'job')} given up"
        hint = "processor dlq list shows those that nobody has dealt with"
        yield Finding(check="dead letters", verdict=Verdict.WARN, text=text, hint=hint, details={"count": letters})
    else:
        yield Finding(check="dead letters", verdict=Verdict.OK, text="none")


def check_transactions(patient: DoctorContext) -> Iterator[Finding]:
    """Whether a transaction hides records for longer than a flush takes."""
    places = [
        TopicPartition(name, number) for name, info in patient.topics.items() for number in range(info.partitions)
    ]
    hidden = _hidden(patient.broker, places)
    if hidden:
        patient.pause(OPEN)
        later = _hidden(patient.broker, list(hidden))
        hidden = {place: stable for place, stable in hidden.items() if later.get(place) == stable}
    if not hidden:
        yield Finding(check="transactions", verdict=Verdict.OK, text=f"none is open for {OPEN:g} s")
        return
    names = sorted(f"{place.topic}-{place.partition}" for place in hidden)
    yield Finding(
        check="transactions",
        verdict=Verdict.WARN,
        text=f"an open transaction hides what follows it in {_several(names)}",
        hint="a worker died in a flush: start its slot again, or wait until the broker ends the transaction",
        details={"partitions": names},
    )


def _hidden(broker: Broker, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Partitions whose last stable offset lies below their end, with that offset."""
    listed = list(places)
    # Stable first: a record that comes between the two questions makes a partition hidden for a moment, never the
    # other way round.
    stable = broker.admin().end_offsets(listed, Isolation.COMMITTED)
    ends = broker.admin().end_offsets(listed)
    return {place: stable[place] for place in listed if stable[place] < ends[place]}


def _several(names: Iterable[str], separator: str = ", ") -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return separator.join(listed[:_NAMED]) + more


CHECKS: dict[str, Callable[[DoctorContext], Iterator[Finding]]] = {
    "broker": check_broker,
    "topics": check_topics,
    "replicas": check_replicas,
    "clocks": check_clocks,
    "workers": check_workers,
    "numbers": check_numbers,
    "offsets": check_offsets,
    "lag": check_lag,
    "oldest": check_oldest,
    "dead letters": check_dead_letters,
    "transactions": check_transactions,
}
"""In the order of the report."""


def examine(patient: DoctorContext) -> Iterator[Finding]:
    """All checks, each finding as soon as it is made. Without a broker the others are useless and are not made."""
    for name, check in CHECKS.items():
        try:
            findings = list(check(patient))
        except ProcessorError as error:
            findings = [Finding.of(name, error)]
        yield from findings
        if name == "broker" and any(finding.verdict is Verdict.FAIL for finding in findings):
            return
