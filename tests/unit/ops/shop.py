"""A shop whose orders fail in all the ways that operators ask about."""

from __future__ import annotations

from pydantic import BaseModel

from processor import App, Backoff, Context, Dead, JobType, Retry


class Order(BaseModel):
    """An order of a customer."""

    order_id: int
    customer: dict[str, str]
    amount: int
    tags: list[str] = []


class Shop:
    """The app and its job types; `fixed` makes refused orders go through."""

    def __init__(self) -> None:
        self.app = app = App("shop")
        self.fixed = False
        app.queue("orders", partitions=2)
        app.queue("mail", partitions=2)

        @app.job(
            "order.charge",
            queue="orders",
            payload=Order,
            search=["order_id", "customer.name", "tags"],
            retry=Retry(2, Backoff("5s")).on(ValueError, Dead("the amount is wrong")),
        )
        def charge(ctx: Context, p: Order) -> int:
            for row in ctx.each("rows", lambda after: range((after or 0) + 1, 4)):
                if row == 3 and p.amount < 0 and not self.fixed:
                    raise ValueError(f"order {p.order_id} has no amount")
                if row == 3 and p.amount == 0 and not self.fixed:
                    raise ConnectionError("the bank does not answer")
            return p.amount

        @app.job("mail.send", queue="mail")
        def mail(ctx: Context) -> None:
            """Says nothing."""

        self.charge: JobType[Order, int] = charge
        self.mail = mail


def order(number: int, amount: int = 5, name: str = "Jane Doe") -> Order:
    """An order."""
    return Order(order_id=number, customer={"name": name}, amount=amount, tags=["web", f"t{number % 3}"])
