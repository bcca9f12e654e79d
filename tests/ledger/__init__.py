"""A run of many jobs on a real Kafka, of which many fail, while workers are killed and the broker is restarted.

`python -m tests.ledger --seed 1 --jobs 20000`: what every job must come to is drawn beforehand from the seed; what it
came to is read from the log afterwards. A table says whether the two are the same.
"""
