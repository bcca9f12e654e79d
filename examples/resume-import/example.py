"""An import that goes on after the last finished row, whatever happens to its worker.

Three things are saved: the size of the file (a step), the place in the file and the tally (a loop and its state), and
that the report was sent (a step that must not run twice).
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from processor import App, Context

app = App("resume-import")
app.queue("imports", partitions=6, concurrency=4)


class Import(BaseModel):
    path: Path


class Tally(BaseModel):
    orders: int = 0
    refunds: int = 0
    cents: int = 0


class Row(NamedTuple):
    line: int
    order: str
    cents: int


def count_rows(path: Path) -> int:
    with path.open(newline="") as file:
        return sum(1 for _ in csv.reader(file))


def read_rows(path: Path, after: int | None) -> Iterator[Row]:
    """The rows after that line; all if there is none."""
    with path.open(newline="") as file:
        for line, (order, cents) in enumerate(csv.reader(file), start=1):
            if after is None or line > after:
                yield Row(line, order, int(cents))


def refund(row: Row, key: str) -> str:
    """Stands for a payment service: `key` lets it see that it has done this refund already."""
    return f"refund {row.order}: {-row.cents} cents (key {key[:8]})"


def send_report(orders: int, refunds: int) -> None:
    """Stands for a mail server, which knows no keys: a second call would be a second mail."""
    print(f"report: {orders} orders, {refunds} refunds")


@app.job("import.orders", queue="imports", payload=Import)
def import_orders(ctx: Context, p: Import) -> Tally:
    total = ctx.step("count", count_rows, p.path)
    tally = ctx.state(Tally)
    for row in ctx.each("rows", lambda after: read_rows(p.path, after), cursor=lambda row: row.line, total=total):
        if row.cents < 0:
            ctx.step("refund", refund, row, ctx.idempotency_key("refund"))
            tally.refunds += 1
        tally.orders += 1
        tally.cents += row.cents
    ctx.once("report", send_report, tally.orders, tally.refunds)
    return tally


if __name__ == "__main__":
    import tempfile

    orders = Path(tempfile.mkdtemp()) / "orders.csv"
    orders.write_text("".join(f"order-{n},{-50 if n % 1000 == 0 else 100}\n" for n in range(1, 100_001)))
    handle = import_orders.enqueue(Import(path=orders))
    print("enqueued", handle.id)
    print(handle.result(timeout="5m"))
