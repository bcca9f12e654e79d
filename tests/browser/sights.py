"""Every page of the dashboard, in every condition that it looks different in."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tests.browser.world import GATEWAY, LONG_QUEUE, LONG_TYPE, ORDER, World

SAVED = "type:order.charge state:dead since:24h"
ALERT = 'supplier:"ACME GmbH & Co. KG"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One page as somebody sees it."""

    path: str
    """`{dead}` stands for the id of the job that is an example of it."""
    user: str = "operator"
    """Whom the proxy names; empty: nobody."""
    status: int = 200
    empty: bool = False
    """In a world in which nothing has happened."""
    opened: bool = False
    """With all that can be opened open."""
    says: str = ""
    """A text that tells that it is what is meant."""


def _q(text: str) -> str:
    return quote(text, safe="")


SIGHTS: dict[str, Sight] = {
    "overview": Sight(path="/overview", says="Waits for a person"),
    "overview-limited": Sight(path="/overview", user="limited"),
    "jobs": Sight(path="/jobs", says="Older jobs"),
    "jobs-filtered": Sight(path=f"/jobs?q={_q(SAVED)}", says="Delete the saved filter"),
    "jobs-is-alert": Sight(path=f"/jobs?q={_q(ALERT)}", says="is an alert: at least 10 jobs for 5m"),
    "jobs-alert": Sight(path=f"/jobs?q={_q(SAVED)}", opened=True, says="Make it an alert"),
    "jobs-save": Sight(path=f"/jobs?q={_q('type:order.* state:dead,retrying')}", opened=True, says="Save this filter"),
    "jobs-none": Sight(path="/jobs?q=order_id:999999", says="No job"),
    "jobs-bad-filter": Sight(path="/jobs?q=nosuch:1", says="nosuch"),
    "job-dead": Sight(path="/jobs/{dead}", opened=True, says="It was given up"),
    "job-long-error": Sight(path="/jobs/{long error}", says="Max retries exceeded"),
    "job-running": Sight(path="/jobs/{running}", opened=True, says="41"),
    "job-succeeded": Sight(path="/jobs/{succeeded}", says="It succeeded"),
    "job-retrying": Sight(path="/jobs/{retrying}", opened=True, says="The next one begins"),
    "job-waiting": Sight(path="/jobs/{waiting}", says="It is parked"),
    "job-in-doubt": Sight(path="/jobs/{in doubt}", opened=True, says="a person must"),
    "job-queued": Sight(path="/jobs/{queued}", says="paused"),
    "job-scheduled": Sight(path="/jobs/{scheduled}", says="It starts"),
    "job-parent": Sight(path="/jobs/{parent}", says="Children"),
    "job-masked": Sight(path="/jobs/{dead}", user="viewer", says="Masked"),
    "failures": Sight(path="/failures", says="different errors"),
    "letters": Sight(path="/letters", opened=True, says="Open letters by error"),
    "letters-of-a-type": Sight(path=f"/letters?type={_q(LONG_TYPE)}", opened=True),
    "letters-redriven": Sight(path="/letters?state=redriven", says="redriven by"),
    "letters-discarded": Sight(path="/letters?state=discarded", says="discarded by"),
    "letters-viewer": Sight(path="/letters", user="viewer"),
    "queues": Sight(path="/queues", opened=True, says=LONG_QUEUE),
    "workers": Sight(path="/workers", says="worker processes"),
    "schedules": Sight(path="/schedules", opened=True, says="reminders"),
    "replay": Sight(path="/replay", says="Which part of the history"),
    "replay-plan": Sight(path="/replay?queue=orders&since=2h&state=dead", opened=True, says="The plan"),
    "replay-none": Sight(path="/replay?queue=mail&since=1h&state=killed", says="No job"),
    "replay-problem": Sight(path="/replay?queue=orders&since=never", says="never"),
    "doctor": Sight(path="/doctor?run=true", says="Examine again"),
    "audit": Sight(path="/audit", says="the bank is back"),
    "care": Sight(path="/care", user="care", says="What became of it?"),
    "care-one": Sight(path=f"/care?q={ORDER}", user="care", opened=True, says="This did not work"),
    "care-many": Sight(path="/care?q=Jane%20Doe", user="care", says="which one"),
    "care-unknown": Sight(path="/care?q=999999", user="care", says="Nothing is known"),
    "not-logged-in": Sight(path="/overview", user="", status=401),
    "not-allowed": Sight(path="/overview", user="care", status=403),
    "limited-doctor": Sight(path="/doctor", user="limited", status=403),
    "unknown-job": Sight(path="/jobs/no-such-job", status=404),
    "unknown-page": Sight(path="/no/such/page", status=404),
    "too-long": Sight(path=f"/jobs?q={'x' * 1001}", status=422),
    "bad-place": Sight(path="/letters?after=nowhere", status=400),
    "empty-overview": Sight(path="/overview", empty=True, says="Nothing does"),
    "empty-jobs": Sight(path="/jobs", empty=True),
    "empty-failures": Sight(path="/failures", empty=True, says="Nothing has failed"),
    "empty-letters": Sight(path="/letters", empty=True),
    "empty-queues": Sight(path="/queues", empty=True),
    "empty-workers": Sight(path="/workers", empty=True),
    "empty-schedules": Sight(path="/schedules", empty=True, says="There are no schedules"),
    "empty-audit": Sight(path="/audit", empty=True, says="Nobody has done anything yet"),
}
assert len(GATEWAY) > 200


def address(sight: Sight, url: str, world: World) -> str:
    """Where it is."""
    path = sight.path
    for name, job_id in world.jobs.items():
        path = path.replace("{" + name + "}", job_id)
    return url + path
