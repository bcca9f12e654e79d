"""Replaying the history of queues.

plan        which jobs are meant, what was deleted of the history, what was sent already: nothing is changed
saved       what jobs had saved, for those that go on from their last checkpoint
run         sending them: each exactly once, whatever becomes of the command
"""

from processor.admin.replay.plan import Gone, Plan, plan_replay, replays_of
from processor.admin.replay.run import Outcome, run_replay

__all__ = ["Gone", "Outcome", "Plan", "plan_replay", "replays_of", "run_replay"]
