"""What a worker and its child processes say to each other survives the way, and is no pickle."""

from __future__ import annotations

import marshal
import socket
from collections.abc import Iterator

import pytest

from processor.broker.base import OutRecord
from processor.core.outcome import Crashed, Failed, Lost, Outcome, Parked, Succeeded, Yielded
from processor.dead_reasons import DeadReason
from processor.executors.child import ChildPort
from processor.executors.child_frames import (
    Assigned,
    Channel,
    Report,
    pack_assigned,
    pack_outcome,
    pack_report,
    unpack_assigned,
    unpack_outcome,
    unpack_report,
)
from processor.job import ErrorInfo, Job, LoopProgress, Progress, Step, StepPhase
from processor.states import State

JOB = Job("j-1", "import", 2, "bulk", b"\x80payload", 17, key="k", kill_at=99)
PROGRESS = Progress("501", '{"good":3}', {"rows": LoopProgress("501", 501, None, False)}, 501.0, 1000.0)
STEP = Step("rows[501]/refund", StepPhase.FINISHED, '"ok"')
ASSIGNED = Assigned(JOB, (1, 0, 4), PROGRESS, {STEP.name: STEP}, {"result_max_bytes": 20}, 600.0)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    pair = Channel(ours), Channel(theirs)
    yield pair
    for channel in pair:
        channel.close()


def test_a_job_arrives_as_it_was_sent(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(pack_assigned(ASSIGNED))
    frame = ends[1].receive()
    assert frame is not None
    arrived = unpack_assigned(frame)
    assert arrived == ASSIGNED
    assert isinstance(arrived.job, Job)
    assert isinstance(arrived.steps[STEP.name].phase, StepPhase)


def test_a_report_arrives_as_it_was_sent(ends: tuple[Channel, Channel]) -> None:
    child = OutRecord("shop.jobs.bulk", b"key", b"\x00value", [("job-id", b"c-1"), ("derived", b"1")])
    report = Report([STEP], [child], PROGRESS, True, ["rows[500]/refund"], (1.0, None, "half"), True)
    ends[1].send(("news", pack_report(report)))
    frame = ends[0].receive()
    assert frame is not None
    assert unpack_report(frame[1]) == report


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(b'{"a":1}'),
        Succeeded(None),
        Failed(ErrorInfo("builtins.ValueError", "no", "trace", "f00"), "bad_payload"),
        *(Failed(ErrorInfo("builtins.ValueError", "no", "trace", "f00"), reason) for reason in DeadReason),
        Yielded(),
        Lost(),
        Parked(State.IN_DOUBT, "step in doubt", None),
        Crashed("exit code 7"),
    ],
)
def test_an_outcome_arrives_as_it_was_sent(outcome: Outcome) -> None:
    arrived = unpack_outcome(marshal.loads(marshal.dumps(pack_outcome(outcome))))
    assert arrived == outcome
    assert type(arrived) is type(outcome)


def test_frames_are_cut_and_joined_by_the_socket_as_it_likes() -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours), Channel(theirs)
    sender.send(("a", b"x" * 50_000))
    sender.send(("b",))
    assert receiver.receive() == ("a", b"x" * 50_000)
    assert receiver.receive() == ("b",)
    sender.close()
    assert receiver.receive() is None
    receiver.close()


def test_a_pickle_is_no_frame(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        ends[0].send(("job", Job))


class Bell:
    """Counts how often the sender was woken."""

    rings = 0

    def __call__(self) -> None:
        self.rings += 1


def test_of_many_checkpoints_only_the_newest_travels() -> None:
    bell = Bell()
    port = ChildPort(ASSIGNED, bell)
    for index in range(1000):
        port.save(PROGRESS._replace(cursor=str(index)))
    assert bell.rings == 1
    report = port.drain()
    assert report is not None
    assert report.progress is not None
    assert (report.save, report.progress.cursor) == (True, "999")
    assert port.drain() is None


def test_forgotten_steps_travel_with_the_progress_that_passed_them() -> None:
    port = ChildPort(ASSIGNED, Bell())
    newer = PROGRESS._replace(cursor="502")
    port.note(newer)
    port.forget_steps([STEP.name])
    report = port.drain()
    assert report is not None
    assert (report.progress, report.forgotten, report.save) == (newer, [STEP.name], False)


def test_what_was_only_noted_waits_for_the_next_report() -> None:
    bell = Bell()
    port = ChildPort(ASSIGNED, bell)
    port.note(PROGRESS._replace(cursor="502"))
    assert bell.rings == 0
    port.save_step(STEP)
    report = port.drain()
    assert report is not None
    assert report.progress is not None
