"""Headers: few, cheap, readable."""

from __future__ import annotations

from processor.job import Job
from processor.wire import headers

JOB = Job(id="j1", type="import.file", version=1, queue="bulk", payload=b"", enqueued_at=1)


def test_a_plain_fresh_job_carries_two_headers() -> None:
    assert headers.routing_headers(JOB) == [("job-id", b"j1"), ("job-type", b"import.file")]


def test_a_moved_job_says_where_it_belongs() -> None:
    moved = JOB._replace(life=2, hop=3, due_at=99, number=7)
    made = headers.routing_headers(moved, derived=True)
    assert dict(made) == {
        "job-id": b"j1",
        "job-type": b"import.file",
        "derived": b"1",
        "life": b"2",
        "hop": b"3",
        "due-at": b"99",
        "queue": b"bulk",
        "number": b"7",
    }
    assert headers.is_derived(made)
    assert headers.number_header(made, headers.DUE_AT) == 99


def test_headers_of_foreign_records_stop_nobody() -> None:
    assert headers.header(None, "x") is None
    assert headers.header([("x", b"1"), ("y", b"3"), ("x", b"2")], "x") == b"2"
    assert headers.header([("x", None)], "x") is None
    assert headers.number_header([("due-at", b"soon")], "due-at") is None
    assert headers.number_header([], "due-at") is None
    assert headers.routing_headers(JOB._replace(id="\ud800"))[0] == ("job-id", b"?")


def test_the_list_belongs_to_the_caller() -> None:
    headers.routing_headers(JOB).append(("x", b""))
    assert len(headers.routing_headers(JOB)) == 2
