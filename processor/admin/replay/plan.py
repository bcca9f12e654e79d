"""What a replay would send: read from the lanes, the status topic and the audit topic. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from processor.admin.lag import queue_lag, queues_of
from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Admin, Broker, Isolation, Record, TopicPartition
from processor.core.replay.history import Choice, Chosen, History, Known
from processor.core.replay.journal import Frozen, Journal, Replay, Stretch
from processor.core.replay.spec import Spec, differences, parse_moment, parse_offset
from processor.errors import RecordError, ReplayError, UnknownQueue
from processor.job import Job, Lane, Place
from processor.states import TERMINAL
from processor.wire import codec, topics
from processor.wire.json_job import completed_in
from processor.wire.topics import jobs_topic, parse_topic

MARGIN_MS = 300_000
"""How much earlier than a moment is read: a job's own clock and the log's may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """What a lane partition holds no more of what was asked for."""

    queue: str
    lane: Lane
    number: int
    asked: int
    """The first offset that was asked for."""
    begins: int
    """The first one that is kept."""
    oldest: int | None
    """Time of the oldest record that is kept, milliseconds since the epoch; None: there is none."""

    @property
    def records(self) -> int:
        """Offsets that are gone: an upper bound of the records."""
        return self.begins - self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a replay means as things are now."""

    name: str
    frozen: Frozen
    choice: Choice
    gone: Sequence[Gone]
    unreadable: int
    """Records of the lanes that are no job to this version."""
    replay: Replay
    """How far it has come."""
    lanes: Mapping[str, int]
    """Topics that it would write jobs to -> their partitions."""

    @property
    def left(self) -> list[Chosen]:
        """The jobs that are still to be sent, in their order."""
        return [job for job in self.choice.jobs if job.name not in self.replay.sent]


def replays_of(broker: Broker, namespace: str) -> Journal:
    """The replays into a namespace.

    Raises:
        TopicMissing: it has no audit topic.
    """
    journal = Journal()
    for record in read_to_end(broker, partitions_of(broker, [topics.audit_topic(namespace)])):
        value = record.value()
        if value is None:
            continue
        try:
            journal.note(codec.decode_audit(value))
        except RecordError:
            # One record of a newer version must not hide all the others.
            continue
    return journal


def plan_replay(broker: Broker, spec: Spec, now_ms: int, name: str | None = None) -> Plan:
    """What is meant, what is gone, and what was sent already if it has begun.

    Args:
        broker: of both namespaces.
        spec: what is wanted.
        now_ms: milliseconds since the epoch; lengths of time are counted back from it. A replay that has begun keeps
            to the moments and offsets of its beginning.
        name: of the replay; None: a digest of the spec.

    Raises:
        ReplayError: that cannot be meant; or another replay has this name.
        UnknownQueue, TopicMissing: a queue or topic does not exist.
    """
    spec.check()
    name = topics.check_name(spec.name() if name is None else name, "replay")
    replay = replays_of(broker, spec.target).of(name)
    frozen = replay.frozen
    if frozen is None:
        frozen = _freeze(broker, spec, now_ms)
    elif frozen.spec != spec:
        raise ReplayError(
            f"replay {name} was begun with other options: {', '.join(differences(frozen.spec, spec))}",
            hint="give the same ones to go on with it, or another --name",
        )
    lanes = _target(broker, spec, sorted({_queue(stretch) for stretch in frozen.stretches}))
    choice, gone, unreadable = _read(broker, frozen, replay)
    return Plan(
        name=name,
        frozen=frozen,
        choice=choice,
        gone=gone,
        unreadable=unreadable,
        replay=replay,
        lanes=lanes,
    )


# -- where it begins and ends ------------------------------------------------------------------------------------------


def _freeze(broker: Broker, spec: Spec, now_ms: int) -> Frozen:
    lanes = queues_of(broker, spec.namespace)
    unknown = [queue for queue in spec.queues if queue not in lanes]
    if unknown:
        raise UnknownQueue(
            f"queue {unknown[0]} has no topics in namespace {spec.namespace}",
            hint=f"there are: {', '.join(lanes) or 'none'}",
        )
    only = spec.source_lane or (Lane.NORMAL if spec.from_offsets or spec.to_offsets else None)
    names = [
        jobs_topic(spec.namespace, queue, lane)
        for queue in dict.fromkeys(spec.queues or lanes)
        for lane in lanes[queue]
        if only is None or lane == only
    ]
    if not names:
        raise ReplayError(f"no such queue has a lane {only}", hint="processor queue list")
    since = None if spec.since is None else parse_moment(spec.since, now_ms, "--since")
    until = None if spec.until is None else parse_moment(spec.until, now_ms, "--until")
    if since is not None and until is not None and since >= until:
        raise ReplayError(
            f"--until {spec.until} is not after --since {spec.since}", hint="--since 2h --until 1h is an hour"
        )
    admin = broker.admin()
    places = partitions_of(broker, names)
    ends = admin.end_offsets(places, Isolation.COMMITTED)
    begins = admin.begin_offsets(places)
    if spec.from_offsets or spec.to_offsets:
        stretches = _by_offset(spec, begins, ends)
    elif since is not None:
        stretches = _by_time(admin, since, begins, ends)
    else:
        stretches = [Stretch(*place, 0, begins[place], ends[place], ends[place]) for place in places]
    return Frozen(spec=spec, since=since, until=until, stretches=stretches)


def _by_offset(spec: Spec, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> list[Stretch]:
    starts = dict(map(parse_offset, spec.from_offsets))
    stops = dict(map(parse_offset, spec.to_offsets))
    named = {number for number in (*starts, *stops) if number is not None}
    strange = named - {place.partition for place in begins}
    if strange:
        raise ReplayError(
            f"queue {spec.queues[0]} has no partition {min(strange)}", hint=f"processor queue lag {spec.queues[0]}"
        )
    stretches = []
    for place, end in ends.items():
        if named and place.partition not in named:
            continue
        asked = starts.get(place.partition, starts.get(None, 0))
        stop = min(end, stops.get(place.partition, stops.get(None, end)))
        stretches.append(Stretch(*place, asked, max(asked, begins[place]), stop, end))
    return stretches


def _by_time(
    admin: Admin, since: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> list[Stretch]:
    """From the first record that may have been enqueued at that moment. If the oldest one that is kept is younger,
    nobody knows how many of those before it were, so all are counted as asked for.
    """
    oldest = admin.offsets_at(dict.fromkeys(begins, 0))
    exact = admin.offsets_at(dict.fromkeys(begins, since))
    early = admin.offsets_at(dict.fromkeys(begins, max(0, since - MARGIN_MS)))
    stretches = []
    for place, end in ends.items():
        start = early.get(place, end)
        known = place in oldest and exact.get(place, end) > oldest[place]
        stretches.append(Stretch(*place, start if known else 0, start, end, end))
    return stretches


def _target(broker: Broker, spec: Spec, queues: Sequence[str]) -> dict[str, int]:
    """The lanes that it goes into.

    Raises:
        ReplayError: one of them, or the status topic, does not exist.
    """
    names = {jobs_topic(spec.target, spec.to_queue or queue, Lane(spec.lane)) for queue in queues}
    found = broker.admin().topics([*names, topics.status_topic(spec.target)])
    missing = sorted({*names, topics.status_topic(spec.target)} - found.keys())
    if missing:
        raise ReplayError(
            f"there is no topic {missing[0]} to replay into",
            hint=f"do --to-namespace, --to-queue and --lane name what is there? "
            f"processor topics apply creates the topics of namespace {spec.target}",
        )
    return {name: found[name].partitions for name in names}


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(broker: Broker, frozen: Frozen, replay: Replay) -> tuple[Choice, list[Gone], int]:
    spec = frozen.spec
    stretches = {TopicPartition(it.topic, it.partition): it for it in frozen.stretches}
    begins = broker.admin().begin_offsets(stretches)
    is_done = _DonePlaces(broker, spec.namespace, sorted({_queue(it) for it in frozen.stretches}))
    history = History(spec, frozen.since, frozen.until, _known(broker, spec.namespace), is_done)
    oldest: dict[TopicPartition, int] = {}
    unreadable = 0
    starts = {place: it.start for place, it in stretches.items()}
    stops = {place: _last(it, spec) for place, it in stretches.items()}
    for record in read_to_end(broker, list(stretches), starts, stops):
        place = Place(record.topic() or "", record.partition() or 0, record.offset() or 0)
        stretch = stretches[TopicPartition(*place[:2])]
        size, at = len(record.value() or b""), record.timestamp()[1]
        oldest.setdefault(TopicPartition(*place[:2]), at)
        in_range = place.offset < stretch.stop
        try:
            job = job_in(record)
        except RecordError:
            unreadable += in_range
            continue
        history.add(_queue(stretch), place, at, job, size, in_range=in_range)
    choice = history.choose(replay.sent)
    gone = [
        Gone(
            queue=_queue(it),
            lane=_lane(it),
            number=it.partition,
            asked=it.asked,
            begins=min(begins[place], it.stop),
            oldest=oldest.get(place),
        )
        for place, it in stretches.items()
        if min(begins[place], it.stop) > it.asked
    ]
    return choice, gone, unreadable


def job_in(record: Record) -> Job:
    """The job that a record of a lane holds; what one in JSON leaves out is told by where it lies.

    Raises:
        RecordError: it is none.
    """
    job = codec.decode_job(record.value() or b"")
    return completed_in(job, record.topic() or "", record.timestamp()[1], record.headers())


def _last(stretch: Stretch, spec: Spec) -> int:
    """How far to read: what became of a job since matters if it is to begin the life after."""
    return stretch.end if spec.same_ids and not spec.moves else stretch.stop


class _DonePlaces:
    """Whether a place in a lane was worked off, by the offsets that are committed now."""

    def __init__(self, broker: Broker, namespace: str, queues: Sequence[str]) -> None:
        self._lags = {
            (jobs_topic(namespace, lag.queue, lag.lane), lag.number): lag
            for lag in queue_lag(broker, namespace, queues)
        }

    def __call__(self, place: Place) -> bool:
        lag = self._lags.get((place.topic, place.partition))
        return lag is not None and lag.is_done(place.offset)


def _known(broker: Broker, namespace: str) -> dict[str, Known]:
    """Where each job stands, by id. A later life counts more; within a life its first end is its last word."""
    known: dict[str, Known] = {}
    for record in read_to_end(broker, partitions_of(broker, [topics.status_topic(namespace)])):
        try:
            status = codec.decode_status(record.value() or b"")
        except RecordError:
            # A tombstone, or a status of a newer version, which must not hide all the others.
            continue
        before = known.get(status.id)
        if before is not None and (
            status.life < before.life or (status.life == before.life and before.state in TERMINAL)
        ):
            continue
        known[status.id] = Known(status.life, status.state)
    return known


def _queue(stretch: Stretch) -> str:
    name = parse_topic(stretch.topic)
    assert name is not None
    assert name.queue is not None
    return name.queue


def _lane(stretch: Stretch) -> Lane:
    name = parse_topic(stretch.topic)
    assert name is not None
    assert name.lane is not None
    return name.lane
