"""A shop stores an order and its job in one transaction: both are there, or neither, whatever dies in between."""

import sys
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, insert
from sqlalchemy.exc import IntegrityError

from processor import App, Context
from processor.outbox.table import metadata as outbox_tables

DATABASE = "sqlite:///shop.sqlite"

app = App("store-and-publish")
tables = MetaData()
orders = Table("orders", tables, Column("number", String, primary_key=True), Column("cents", Integer, nullable=False))


class Order(BaseModel):
    number: str
    cents: int


@app.job("ship", payload=Order)
def ship(ctx: Context, p: Order) -> str:
    label: str = ctx.step("label", lambda: f"label of {p.number}")
    return label


def make_tables(engine: Engine) -> None:
    """The shop's own table, and the outbox beside it."""
    tables.create_all(engine)
    outbox_tables.create_all(engine)


def place(engine: Engine, order: Order) -> str | None:
    """Store an order with its job; the id of the job, None if there is such an order already."""
    try:
        with engine.begin() as session:
            handle = ship.enqueue(order, session=session)
            session.execute(insert(orders).values(number=order.number, cents=order.cents))
    except IntegrityError:
        return None  # the transaction is undone, and its job with it
    return handle.id


if __name__ == "__main__":
    database = create_engine(DATABASE)
    make_tables(database)
    job = place(database, Order(number=sys.argv[1] if len(sys.argv) > 1 else "order-7", cents=1200))
    print(f"stored, with job {job}" if job else "this order is there already")
    print(f"now send it: processor outbox run --once --database {DATABASE} --app {Path(__file__).name}:app")
