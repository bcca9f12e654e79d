"""Making a transactional producer that is initialised, or leaving no trace of it."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from processor.errors import BrokerError

if TYPE_CHECKING:
    from processor.broker.base import Broker, TransactionalProducer


def initialised(broker: Broker, transactional_id: str, timeout: float) -> TransactionalProducer:
    """A new producer that has fenced its predecessors and ended what they left open.

    Raises:
        BrokerError: it could not within `timeout` seconds. The producer is gone then.
    """
    producer = broker.transactional_producer(transactional_id)
    try:
        producer.init(timeout)
    except BrokerError as error:
        # The client goes on trying in its own thread until it is freed, and then fences whoever came after it. So
        # nothing may keep it: the frames of this error would, until the garbage collector comes round (measured: a
        # worker that had taken over was fenced 0.5 to 1 s later).
        traceback.clear_frames(error.__traceback__)
        producer.close()
        raise
    return producer
