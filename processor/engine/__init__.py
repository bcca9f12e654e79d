"""The engine: one owning thread that decides; executors run handlers beside it, a flusher speaks to Kafka.

The way of one job, from its record to its commit: `loop` (a turn of the owning thread), `intake` (a record becomes an
attempt), `dispatch` and `ready_queue` (it waits for a slot), then an executor (its handler runs and reports through the
mailbox of its `attempt`), `outcomes` (what that means, by `processor.core.verdict` and `processor.core.completer`),
`outbox` and `flush` (it becomes durable).

Around it: `ownership`, `restore` and `refetch` (partitions come and go), `timers` (what goes by the clock), `guard`
(what goes wrong), `operators` and `gate` (what people want), `forwarder` (the retry chain), `retention`, `orphans` and
`watchdog` (upkeep). `assembly` puts the parts together; `fetching`, `flushing` and `housekeeping` are what the loop
calls in each turn.
"""
