"""What operators call: topics, lag, jobs, checkpoints. Takes any `Broker`; never deletes a topic.

Everything here reads with clients of its own and joins no group, so it disturbs no worker. Dead letters have modules of
their own: `dead_letters` reads them, `redrive` sends them back or discards them.
"""

from processor.admin.jobs import JobRow, SavedProgress, job_status, list_jobs, saved_progress
from processor.admin.lag import LaneLag, live_jobs, queue_lag, queues_of
from processor.admin.reading import tail
from processor.admin.topics import Action, TopicChange, TopicsReview, apply_topics, plan_topics, verify_topics

__all__ = [
    "Action",
    "JobRow",
    "LaneLag",
    "SavedProgress",
    "TopicChange",
    "TopicsReview",
    "apply_topics",
    "job_status",
    "list_jobs",
    "live_jobs",
    "plan_topics",
    "queue_lag",
    "queues_of",
    "saved_progress",
    "tail",
    "verify_topics",
]
