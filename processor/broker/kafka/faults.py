"""From librdkafka's errors to ours."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from processor.broker import reach
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    OffsetOutOfRange,
    ProducerFatal,
    ProducerFenced,
    RecordRefused,
    RetriableBrokerError,
    StaleMembership,
    TopicRefused,
)

FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.SECURITY_DISABLED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
    }
)
AWAY = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._UNKNOWN_BROKER,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
    }
)
BAD_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError._INVALID_ARG,
    }
)
NO_TOPIC = frozenset(
    {
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
OUT_OF_RANGE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
RETRIABLE = frozenset(
    {
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        # What list_offsets says while the leader of a partition is not known.
        KafkaError._NOENT,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_CONTROLLER,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
    }
)


RAISED = (KafkaException, SystemError)
"""What a call of confluent_kafka raises for an error of Kafka's. A fatal error is not given to `error_cb` but raised by
whatever call serves callbacks; if that call goes on to hand over a log line, Python makes a SystemError of it.
"""


def cause(exception: BaseException) -> KafkaError:
    """The error inside an exception of confluent_kafka. Any other exception is raised on."""
    if isinstance(exception, SystemError) and exception.__cause__ is not None:
        return cause(exception.__cause__)
    if not isinstance(exception, KafkaException):
        raise exception
    error = exception.args[0]
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def explain(error: KafkaError, doing: str) -> str:
    """`doing: NAME: what librdkafka says`."""
    return f"{doing}: {error.name()}: {error.str()}"


def away(doing: str, bootstrap: str) -> BrokerUnavailable:
    """No broker answered."""
    return BrokerUnavailable(
        f"{doing}: {reach.trouble(bootstrap)}",
        hint=reach.advice(bootstrap),
    )


def refused(reason: str, bootstrap: str) -> BrokerRefused:
    """A broker answered, and said no."""
    return BrokerRefused(
        f"Kafka at {bootstrap} refused: {reason}", hint="check user, password, TLS settings and permissions (ACLs)"
    )


def of_record(error: KafkaError, doing: str, bootstrap: str) -> BrokerError:
    """Error of one record that was to be appended."""
    if error.code() in NO_TOPIC:
        return TopicRefused(explain(error, doing))
    if error.code() in BAD_RECORD:
        return RecordRefused(explain(error, doing))
    return plain(error, doing, bootstrap)


def plain(error: KafkaError, doing: str, bootstrap: str) -> BrokerError:
    """Error of a call outside of transactions."""
    code = error.code()
    if code in FENCED:
        return ProducerFenced(explain(error, doing), hint="another process took this transactional id")
    if error.fatal():
        return ProducerFatal(explain(error, doing))
    if code in REFUSED:
        return refused(explain(error, doing), bootstrap)
    if code in AWAY:
        return away(doing, bootstrap)
    if code in OUT_OF_RANGE:
        return OffsetOutOfRange(explain(error, doing))
    if code in RETRIABLE or error.retriable():
        return RetriableBrokerError(explain(error, doing))
    return BrokerError(explain(error, doing))


STALE = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH})
"""The group does not take this membership's offsets; the transaction itself is to be aborted."""


def transactional(error: KafkaError, doing: str, bootstrap: str) -> BrokerError:
    """Error of a call of the transactional API: what librdkafka's flags demand.

    Whatever is neither retriable nor abortable leaves the producer unusable (librdkafka INTRODUCTION.md).
    """
    code = error.code()
    if code in FENCED:
        return ProducerFenced(explain(error, doing), hint="another process took this transactional id")
    if code in STALE:
        return StaleMembership(explain(error, doing))
    if error.txn_requires_abort():
        return AbortRequired(explain(error, doing))
    if error.retriable():
        return RetriableBrokerError(explain(error, doing))
    if code in REFUSED:
        return refused(explain(error, doing), bootstrap)
    return ProducerFatal(explain(error, doing))
