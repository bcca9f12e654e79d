"""Alerts reach people: what workers write to the topic `{ns}.alerts` is delivered by rules, until it has arrived.

`rules` (pure) says who hears of what and folds repeats, `delivery` sends to one address, `alerter` is the process that
reads the topic: for each rule a consumer group of its own, so that a recipient who is away holds up no other.
"""
