"""`processor alerts`: a saved filter becomes an alert, and is none any more."""

from __future__ import annotations

from pathlib import Path

from processor.admin.reading import partitions_of, read_to_end
from processor.cli.alerts import filters, unwatch, watch
from processor.ops.kept import Kept
from processor.ops.store import Store
from processor.wire.codec import decode_audit
from processor.wire.topics import audit_topic
from tests.unit.cli.shop import AT, Shop


def test_a_saved_filter_becomes_an_alert_and_is_none_any_more(shop: Shop, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/p.sqlite"
    where = ("--database", database)
    assert "no filter is saved" in shop.run(filters, *where).output
    store = Store(database, "shop")
    Kept(store).save("dead imports", "state:dead type:import.*", "jane@dashboard", AT)
    store.close()
    made = shop.run(watch, "dead imports", "--at-least", "10", "--for", "5m", *where)
    assert (made.exit_code, made.output) == (0, "filter dead imports is an alert: at least 10 jobs for 5m\n")
    (row,) = shop.json(filters, *where)
    assert (row["name"], row["alert"]["at_least"], row["alert"]["for"]) == ("dead imports", 10, "5m")
    assert shop.run(watch, "dead imports", "--each", *where).exit_code == 0
    listed = shop.run(filters, *where).output
    assert "each new job" in listed
    assert "quiet" in listed
    for wrong in (("dead imports",), ("dead imports", "--each", "--at-least", "1"), ("none", "--each")):
        refused = shop.run(watch, *wrong, *where)
        assert refused.exit_code != 0
    assert shop.json(unwatch, "dead imports", *where) == {"filter": "dead imports", "alert": None}
    assert shop.run(unwatch, "dead imports", *where).exit_code != 0
    assert [row["alert"] for row in shop.json(filters, *where)] == [None]
    records = read_to_end(shop.broker, partitions_of(shop.broker, [audit_topic("shop")]))
    noted = [decode_audit(record.value() or b"") for record in records]
    assert [(line.action, line.subject, line.detail) for line in noted] == [
        ("watch_filter", "filter:dead imports", "at least 10 jobs for 5m"),
        ("watch_filter", "filter:dead imports", "each new job"),
        ("unwatch_filter", "filter:dead imports", ""),
    ]
