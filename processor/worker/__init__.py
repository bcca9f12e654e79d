"""The engine: one owning thread that decides, executors that run handlers, a flusher that speaks to Kafka.

Read in this order: `loop` (a turn), `ownership` (numbers come and go), `restore`, `intake` (a record becomes an
attempt), `dispatch` and the pools, `attempt` and `runner` (a handler runs), `settle` (its outcome becomes records),
`outbox` and `flush` (they become durable), `sweep` (what goes by the clock).
"""
