"""Every error of the package, drawn as a tree. Each says what happened and what to do; `code` is stable for machines.

ProcessorError
├── SettingsError               a setting is unknown or has a wrong value
├── ExtraMissing                an optional dependency is not installed
├── BrokerError                 Kafka said no, or nothing
│   ├── BrokerUnavailable       no broker answered in time
│   ├── BrokerRefused           wrong password, missing permission, TLS mismatch
│   ├── RetriableBrokerError    call the same function again
│   ├── AbortRequired           the transaction must be aborted, the work sent again
│   │   └── StaleMembership     ... because the group has moved on
│   ├── ProducerFatal           the producer is unusable
│   │   └── ProducerFenced      ... because a successor took its transactional id
│   ├── MemberFenced            another process joined with this instance id
│   ├── OffsetOutOfRange        the log no longer holds the wanted offset
│   ├── RecordRefused           this one record can never be written (too large, ...)
│   │   └── TopicRefused        ... because its topic, or the right to write to it, is missing
│   └── DevBrokerError          the local test broker
├── TopicError
│   └── TopicMissing  TopicMismatch: partitions, cleanup or retention differ from the plan
├── DefinitionError             queue, job type or schedule declared wrongly
│   └── UnknownQueue  UnknownJobType
├── EnqueueError
│   ├── QueueFull               the queue's limit is reached (processor.client.backlog)
│   ├── EnqueueUnconfirmed      no acknowledgement; repeating with its id is safe
│   ├── NameInvalid             an id or ordering key is not allowed
│   └── PayloadInvalid  PayloadTooLarge
├── RecordError                 a record in the log
│   └── UndecodableRecord  NewerRecord: written by a newer version than this code
├── DeadLetterError  ReplayError    a dead letter, or a part of the history, is not there or cannot be used so
├── OrderRefused                an operator's order makes no sense now
│   └── SeekRefused             ... there is no such place in the log
├── HandlerMistake              a handler broke a rule of resuming
│   ├── CursorType  DuplicateName  NameNotAllowed  StepChanged  StateChanged
│   └── CheckpointTooLarge  ResultTooLarge  ResultType
├── OffsetsLost                 a partition that was worked on has no offset and no mark
├── InternalError               the engine itself failed: a fault of this package
├── AttemptTimedOut             an attempt took too long, or stood still
├── JobNotFinished              result(): the wait timed out
├── OtherJobType                a handle of one job type was given the id of a job of another
├── ResultUnavailable           result(): the job succeeded, its result could not be kept
└── JobFailed                   result(): the job ended without success

TerminalError, RetryableError   raised by handlers, on purpose
ProcessEnded (BaseException)    ends a simulated process
JobInterrupted (BaseException)  tells a handler to stop: JobYielded, JobLost
"""

from __future__ import annotations

from collections.abc import Sequence

from processor.signals import JobInterrupted as JobInterrupted
from processor.signals import JobLost as JobLost
from processor.signals import JobYielded as JobYielded
from processor.signals import ProcessEnded as ProcessEnded
from processor.signals import RetryableError as RetryableError
from processor.signals import TerminalError as TerminalError


class ProcessorError(Exception):
    """Base of all errors of this package.

    `code` is stable for machines, `hint` says what to do and is printed on a line of its own by the command line.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback shows it too


class SettingsError(ProcessorError):
    """A setting is unknown or has a wrong value."""

    code = "settings"
    exit_code = 2


class ExtraMissing(ProcessorError):
    """An optional dependency is needed and not installed."""

    code = "extra_missing"
    exit_code = 2

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the extra '{extra}'", hint=f"pip install 'kafka-job-processor[{extra}]'")


class BrokerError(ProcessorError):
    """Kafka refused something or did not answer."""

    code = "broker"
    exit_code = 3


class BrokerUnavailable(BrokerError):
    """No broker answered in time. Work waits; nothing is lost."""

    code = "broker_unavailable"


class BrokerRefused(BrokerError):
    """Wrong password, missing permission or TLS mismatch. Retrying does not help."""

    code = "broker_refused"


class RetriableBrokerError(BrokerError):
    """A passing fault: call the same function again."""

    code = "broker_retriable"


class AbortRequired(BrokerError):
    """The transaction must be aborted and its records sent again in a new one."""

    code = "abort_required"


class StaleMembership(AbortRequired):
    """The group refused the offsets: they came with the metadata of an older generation, or of a member that is gone.
    Nothing is flushed until the next rebalance callback has run."""

    code = "stale_membership"


class ProducerFatal(BrokerError):
    """The producer can do nothing more; build a new one."""

    code = "producer_fatal"


class ProducerFenced(ProducerFatal):
    """Another producer initialised the same transactional id."""

    code = "producer_fenced"


class MemberFenced(BrokerError):
    """Another process joined the group with this instance id."""

    code = "member_fenced"


class OffsetOutOfRange(BrokerError):
    """The log no longer (or not yet) holds the wanted offset."""

    code = "offset_out_of_range"


class RecordRefused(BrokerError):
    """This record can never be written as it is: too large, unknown topic, invalid."""

    code = "record_refused"


class TopicRefused(RecordRefused):
    """Nothing can be written to this topic: it is not there, has fewer partitions, or this user may not write to it."""

    code = "topic_refused"


class DevBrokerError(BrokerError):
    """The local broker could not be fetched, started or stopped."""

    code = "dev_broker"


class TopicError(ProcessorError):
    """A topic is not as the plan wants it."""

    code = "topic"
    exit_code = 4


class TopicMissing(TopicError):
    """A topic does not exist."""

    code = "topic_missing"


class TopicMismatch(TopicError):
    """A topic exists with another number of partitions, cleanup policy or retention."""

    code = "topic_mismatch"


class DefinitionError(ProcessorError):
    """A queue, job type or schedule is declared wrongly."""

    code = "definition"
    exit_code = 2


class UnknownQueue(DefinitionError):
    """No queue of that name is declared."""

    code = "unknown_queue"


class UnknownJobType(DefinitionError):
    """No job type of that name is declared."""

    code = "unknown_type"


class EnqueueError(ProcessorError):
    """A job could not be handed to the log."""

    code = "enqueue"


class EnqueueUnconfirmed(EnqueueError):
    """The log did not confirm the record in time: it may be there or not. Enqueue again with the same id: safe."""

    code = "enqueue_unconfirmed"

    def __init__(self, job_id: str, reason: str, ids: Sequence[str] = ()) -> None:
        others = len(ids) - 1
        super().__init__(
            f"job {job_id} is not confirmed: {reason}" + (f" ({others:,} more, see .ids)" if others > 0 else ""),
            hint="enqueue it again with this id; it will not run twice",
        )
        self.id = job_id
        self.ids = list(ids) or [job_id]
        """All that are not confirmed, in the order of their enqueue; those before them are."""


class NameInvalid(EnqueueError):
    """An id, ordering key or name of a job is not allowed: it could not be a key or a name in the log."""

    code = "bad_name"


class PayloadInvalid(EnqueueError):
    """The payload's model refuses it."""

    code = "bad_payload"


class PayloadTooLarge(EnqueueError):
    """The payload is over the limit. Put the data elsewhere and send a reference."""

    code = "payload_too_large"


class RecordError(ProcessorError):
    """A record in the log cannot be used."""

    code = "record"


class UndecodableRecord(RecordError):
    """The bytes of a record do not decode."""

    code = "undecodable"


class NewerRecord(RecordError):
    """A record written by a newer version of the schema or of the job type than this code knows."""

    code = "newer_record"


class DeadLetterError(ProcessorError):
    """There is no such dead letter, or what was asked cannot be done with it."""

    code = "dead_letter"


class ReplayError(ProcessorError):
    """What was asked cannot be replayed so, or the same replay goes on elsewhere; nothing is sent twice."""

    code = "replay"


class OrderRefused(ProcessorError):
    """What was ordered makes no sense as things are: the job has ended, the queue is not paused, workers are there."""

    code = "order_refused"


class SeekRefused(OrderRefused):
    """There is no such partition, or it does not hold the offset where it is to go on."""

    code = "seek_refused"


class HandlerMistake(ProcessorError):
    """A handler broke one of the rules that make resuming possible."""

    code = "handler_mistake"


class CursorType(HandlerMistake):
    """A cursor must be a JSON scalar or a flat list of them and survive the round trip."""

    code = "cursor_type"


class DuplicateName(HandlerMistake):
    """Two steps or loops of one name in one scope."""

    code = "duplicate_name"


class NameNotAllowed(HandlerMistake):
    """A step, loop or child has a name that cannot be one, or a progress report holds no number."""

    code = "name_not_allowed"


class StepChanged(HandlerMistake):
    """A saved step was never asked for: the handler's code changed under a running job."""

    code = "step_changed"


class StateChanged(HandlerMistake):
    """State may change only inside items of `ctx.each`."""

    code = "state_changed"


class CheckpointTooLarge(HandlerMistake):
    """Cursor, state or a step's result is over the limit."""

    code = "checkpoint_too_large"


class ResultTooLarge(HandlerMistake):
    """The handler's result is over the limit."""

    code = "result_too_large"


class ResultType(HandlerMistake):
    """A result cannot be written as JSON, or not be read back as its annotation says."""

    code = "result_type"


class OffsetsLost(ProcessorError):
    """A partition has no offsets and the log does not say how far it is done. It is held, or its work would rerun."""

    code = "offsets_lost"


class InternalError(ProcessorError):
    """The engine failed in a way that it should not: please report it, with the traceback of the log."""

    code = "internal_error"


class AttemptTimedOut(ProcessorError):
    """An attempt took longer than `attempt_timeout`, or saved nothing for `stall_timeout`. `Retry.on` may name it."""

    code = "timed_out"


class JobNotFinished(ProcessorError):
    """The wait for a job's end timed out; the job goes on."""

    code = "job_not_finished"


class ResultUnavailable(ProcessorError):
    """The job has succeeded, but the broker refused its result: it is larger than the status topic takes."""

    code = "result_unavailable"


class OtherJobType(ProcessorError):
    """The id belongs to a job of another type than the handle is of: what is known of it is not told as this one's."""

    code = "other_job_type"

    def __init__(self, job_id: str, wanted: str, found: str) -> None:
        super().__init__(
            f"job {job_id} is a {found}, and this is a handle of {wanted}",
            hint="ask app.handle(id), or the handle of its own type; two types need different ids",
        )
        self.id, self.wanted, self.found = job_id, wanted, found


class JobFailed(ProcessorError):
    """The job ended without success; `state` and `error` say how."""

    code = "job_failed"

    def __init__(self, job_id: str, state: str, error: str) -> None:
        super().__init__(f"job {job_id} ended {state}: {error}")
        self.id = job_id
        self.state = state
        self.error = error
