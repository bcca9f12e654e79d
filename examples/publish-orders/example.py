"""A web shop publishes a job per order: a double click is one charge, and a full queue is an answer, not a crash."""

from pydantic import BaseModel

from processor import App, Context, QueueFull

app = App("publish-orders")
app.queue("charges", max_backlog=10_000)


class Order(BaseModel):
    number: str
    cents: int


@app.job("charge", queue="charges", payload=Order)
def charge(ctx: Context, p: Order) -> str:
    receipt = ctx.once("charge", lambda: f"receipt for {p.number}")  # the payment provider is called here
    ctx.log.info("order.charged", extra={"order": p.number, "cents": p.cents})
    return receipt


def place(order: Order) -> dict[str, object]:
    """What the web handler answers."""
    try:
        handle = charge.enqueue(order, idempotency_key=order.number)
    except QueueFull as full:
        return {"status": 503, "retry_after": full.retry_after}
    return {"status": 202, "job": handle.id}


if __name__ == "__main__":
    order = Order(number="order-7", cents=1200)
    first, second = place(order), place(order)  # the customer clicks twice
    print(f"{first}\n{second}")
    print(app.handle(str(first["job"])).result(timeout="1m"))
