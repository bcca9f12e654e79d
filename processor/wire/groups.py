"""Names of the consumer groups of a namespace, and of their members.

Every queue has a group of its own, named like its normal lane: one group for all of them balances the total, and a
third worker on a busy queue gets the partitions of an idle one (measured: ten times of ten).
"""

from __future__ import annotations

from hashlib import blake2b

from processor.wire.topics import jobs_topic


def queue_group(namespace: str, queue: str) -> str:
    """The group of a queue's workers: `{ns}.jobs.{queue}`."""
    return jobs_topic(namespace, queue)


def forwarder_group(namespace: str) -> str:
    """The group of the forwarders; every worker has one, so it lists all workers."""
    return f"{namespace}.forwarders"


def scheduler_group(namespace: str) -> str:
    """The group of the schedulers: the owner of its one partition fires the schedules."""
    return f"{namespace}.schedulers"


def former_group(namespace: str) -> str:
    """The group that all queues once shared: its offsets are taken over."""
    return f"{namespace}.workers"


def instance_name(group: str, slot: str) -> str:
    """The `group.instance.id` of a slot: `{two hex digits}.{slot}`.

    Assignors hand out what does not divide evenly in the order of these names. The digits put the members into another
    order in each group, so that the remainders of many queues do not all fall to the same worker.
    """
    return f"{blake2b(f'{group} {slot}'.encode(), digest_size=1).hexdigest()}.{slot}"


def slot_of(instance: str) -> str:
    """The slot of a member, from its `group.instance.id`; of a stranger the whole."""
    return instance.partition(".")[2] or instance
