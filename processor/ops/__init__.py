"""The operators' surface: a projection of the log into SQL, and what is asked of it.

Kafka stays the only truth: the projection holds nothing that it could not read again (`processor projection rebuild`).
`projector` reads the log, `folding` decides what a record means, `applying` writes it in one SQL transaction with the
offsets, `filters` reads the one filter language of page, API and command line, `queries` answers.

Needs the extra `dashboard`.
"""
