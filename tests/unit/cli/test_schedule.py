"""`processor schedule`, on an app bound to the memory broker."""

from __future__ import annotations

from itertools import pairwise

import pytest

from processor.cli.schedule import schedule
from processor.core.schedules import FIRED
from processor.job_ids import scheduled_id
from processor.states import State
from processor.wire.codec import decode_job
from processor.wire.records import ScheduleFired
from tests.unit.cli.shop import Shop

PAYLOAD = '{"url": "s3://nightly"}'
NIGHTLY = ("nightly", "import.file", PAYLOAD, "--cron", "30 2 * * *", "--tz", "Europe/Berlin")
DAY = 86_400_000


def jobs(shop: Shop) -> list[str]:
    """Ids of the jobs in the lanes of the queue, in their order per partition."""
    from processor.admin.reading import partitions_of, read_to_end

    return [
        decode_job(r.value() or b"").id
        for r in read_to_end(shop.broker, partitions_of(shop.broker, ["shop.jobs.bulk"]))
    ]


def test_a_schedule_is_added_listed_and_removed(shop: Shop) -> None:
    looked = shop.run(schedule, "add", *NIGHTLY, "--dry-run")
    assert looked.stdout.startswith("schedule nightly would fire 30 2 * * * Europe/Berlin: ")
    assert shop.run(schedule, "list").stderr == "no schedules in namespace shop\n"
    added = shop.run(schedule, "add", *NIGHTLY, "--reason", "the bank wants it")
    assert added.exit_code == 0, added.stderr
    assert added.stdout.startswith("schedule nightly added; it fires next at 20")
    lines = shop.run(schedule, "list").stdout.splitlines()
    assert lines[0].split() == [
        "SCHEDULE",
        "TYPE",
        "WHEN",
        "OVERLAP",
        "NEXT",
        "LAST",
        "RUNS",
        "SKIPPED",
        "FROM",
        "PAUSED",
    ]
    assert lines[1].split()[:3] == ["nightly", "import.file", "30"]
    assert lines[1].split()[-1] == "cli"
    (row,) = shop.json(schedule, "list")
    assert (row["schedule"], row["queue"], row["runs"], row["last_at"]) == ("nightly", "bulk", 0, None)
    changed = shop.run(schedule, "add", "nightly", "import.file", PAYLOAD, "--every", "10m", "--jitter", "30s")
    assert changed.stdout.startswith("schedule nightly changed; ")
    assert "every 10m + up to 30s" in shop.run(schedule, "list").stdout
    assert shop.run(schedule, "remove", "nightly", "--dry-run").stdout == (
        "schedule nightly (every 10m + up to 30s) would be removed\n"
    )
    assert shop.run(schedule, "remove", "nightly").stdout == "schedule nightly removed\n"
    missing = shop.run(schedule, "remove", "nightly")
    assert (missing.exit_code, "there is no schedule 'nightly'" in missing.stderr) == (1, True)


def test_next_shows_instants_in_utc_and_in_the_zone_of_the_schedule(shop: Shop) -> None:
    shop.run(schedule, "add", *NIGHTLY)
    lines = shop.run(schedule, "next", "nightly", "-n", "3").stdout.splitlines()
    assert lines[0].split() == ["UTC", "EUROPE/BERLIN"]
    assert [line.split()[-1][:8] for line in lines[1:]] == ["02:30:00"] * 3 or any("03:00" in line for line in lines)
    rows = shop.json(schedule, "next", "nightly")
    assert len(rows) == 5
    assert all(later["at"] > row["at"] for row, later in pairwise(rows))


def test_what_code_declares_and_what_is_typed(shop: Shop) -> None:
    import_file = shop.app.job_types["import.file"]
    payload = import_file._payloads.checked({"url": "a"})
    shop.app.schedule("nightly", import_file, payload=payload, cron="0 4 * * *")
    assert shop.run(schedule, "list").stderr.splitlines()[-1] == (
        "schedule nightly is declared in the code; a worker adds it when it starts"
    )
    added = shop.run(schedule, "add", *NIGHTLY)
    assert "this one wins, until processor schedule remove nightly" in added.stderr
    assert "cli (over code)" in shop.run(schedule, "list").stdout
    assert shop.json(schedule, "list")[0]["over_code"]
    removed = shop.run(schedule, "remove", "nightly")
    assert removed.stdout.startswith(
        "schedule nightly removed; the one in the code holds again: 0 4 * * * UTC, next at "
    )
    (row,) = shop.json(schedule, "list")
    assert (row["from"], row["when"]) == ("code", "0 4 * * * UTC")
    removed = shop.run(schedule, "remove", "nightly")
    assert removed.stdout == "schedule nightly removed\n"
    assert "the next worker that starts adds it again" in removed.stderr


def test_pausing(shop: Shop) -> None:
    shop.run(schedule, "add", *NIGHTLY)
    assert shop.run(schedule, "pause", "nightly", "--dry-run").stdout == "schedule nightly would rest\n"
    done = shop.run(schedule, "pause", "nightly", "--reason", "the bank is closed")
    assert done.stdout == "schedule nightly rests; processor schedule resume nightly lets it go on\n"
    assert "the bank is closed" in shop.run(schedule, "list").stdout
    assert "is paused" in shop.run(schedule, "next", "nightly").stderr
    assert "it is still paused" in shop.run(schedule, "add", *NIGHTLY).stderr
    assert shop.run(schedule, "pause", "nightly").exit_code == 1
    assert shop.run(schedule, "resume", "nightly", "--dry-run").stdout == "schedule nightly would go on\n"
    assert shop.run(schedule, "resume", "nightly").stdout.startswith("schedule nightly goes on; it fires next at ")
    assert shop.run(schedule, "resume", "nightly").exit_code == 1


def test_a_trigger_puts_a_job_into_the_lane(shop: Shop) -> None:
    shop.run(schedule, "add", *NIGHTLY)
    assert (
        shop.run(schedule, "trigger", "nightly", "--dry-run").stdout == "a job import.file would start in queue bulk\n"
    )
    assert jobs(shop) == []
    triggered = shop.run(schedule, "trigger", "nightly", "--reason", "now")
    assert jobs(shop) == [triggered.stdout.strip()]


def test_a_backfill_starts_what_has_not_run(shop: Shop) -> None:
    shop.run(schedule, "add", "daily", "import.file", PAYLOAD, "--cron", "0 0 * * *")
    days = [1_767_225_600_000 + n * DAY for n in range(3)]
    shop.status(scheduled_id("daily", days[1]), State.SUCCEEDED)
    stretch = ("daily", "--from", "2026-01-01", "--to", "2026-01-04T01:00+01:00")
    looked = shop.run(schedule, "backfill", *stretch, "--dry-run")
    assert [line.split()[0] for line in looked.stdout.splitlines()] == [
        "INSTANT",
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]
    assert looked.stderr == "2 jobs to start; 1 of 3 are known already\n"
    assert "give --yes" in shop.run(schedule, "backfill", *stretch).stderr
    assert jobs(shop) == []
    done = shop.run(schedule, "backfill", *stretch, "--yes")
    assert done.exit_code == 0, done.stderr
    assert sorted(jobs(shop)) == sorted(scheduled_id("daily", day) for day in (days[0], days[2]))
    assert shop.run(schedule, "backfill", "daily", "--from", "2026-01-01", "--to", "2026-01-01").exit_code == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["add", "x", "import.file", PAYLOAD], 2, "cron= or every="),
        (["add", "x", "import.file", PAYLOAD, "--every", "1m", "--cron", "* * * * *"], 2, "cron= or every="),
        (["add", "x", "import.file", PAYLOAD, "--cron", "0 26 * * *"], 2, "Bad hour"),
        (["add", "x", "import.file", PAYLOAD, "--every", "now and then"], 2, "no length of time"),
        (["add", "x", "import.file", '{"uri": 1}', "--every", "1m"], 1, "url"),
        (["add", "x", "import.file", PAYLOAD, "--every", "1m", "--key", "k"], 2, "are known"),
        (["add", "x", "mail", "--every", "1m"], 2, "which queue?"),
        (["add", "x", "mail", "--every", "1m", "-q", "gone"], 2, "queue gone has no topics"),
        (["add", "x#y", "import.file", PAYLOAD, "--every", "1m"], 2, "'#'"),
        (["next", "x"], 1, "there is no schedule 'x'"),
        (["trigger", "x"], 1, "there is no schedule 'x'"),
        (["backfill", "x", "--from", "soon", "--to", "later"], 2, "is no moment"),
        (["backfill", "x", "--from", "2026-01-01", "--to", "2026-01-02"], 1, "there is no schedule"),
    ],
)
def test_what_cannot_be_is_explained(shop: Shop, args: list[str], code: int, said: str) -> None:
    result = shop.run(schedule, *args)
    assert said in result.stderr
    assert result.exit_code == code


def test_how_far_a_schedule_is(shop: Shop) -> None:
    shop.run(schedule, "add", *NIGHTLY)
    fired = ScheduleFired("nightly", 1_767_229_200_000, 1_767_229_200_017, "w-0", "job-1", 1_767_229_200_017, 7, 2)
    shop.write("shop.schedules", f"nightly{FIRED}", fired)
    (row,) = shop.json(schedule, "list")
    assert (row["last_at"], row["last_job"], row["runs"], row["skipped"]) == (1_767_229_200_000, "job-1", 7, 2)
    assert "2026-01-01 01:00:00Z" in shop.run(schedule, "list").stdout


def test_the_schedule_of_another_programs_job_type(shop: Shop) -> None:
    added = shop.run(
        schedule, "add", "mails", "mail", '{"to": "ada"}', "--every", "1m", "-q", "bulk", "--overlap", "queue"
    )
    assert added.exit_code == 0, added.stderr
    (row,) = shop.json(schedule, "list")
    assert (row["type"], row["overlap"]) == ("mail", "queue")
