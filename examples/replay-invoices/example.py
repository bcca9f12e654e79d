"""The tax rate of a country was wrong for an hour. Once it is right, the jobs of that country run again."""

from pydantic import BaseModel

from processor import App, Context

app = App("replay-invoices")
app.queue("invoices")

RATES = {"DE": 19, "FR": 19}  # France has 20


class Order(BaseModel):
    number: int
    country: str
    cents: int


@app.job("invoice", queue="invoices", payload=Order, key=lambda p: p.country)
def invoice(ctx: Context, p: Order) -> int:
    """The invoice's sum, in cents. A later one for the same order replaces an earlier one."""
    total = p.cents * (100 + RATES[p.country]) // 100
    ctx.log.info("invoice.written", extra={"order": p.number, "cents": total})
    return total


if __name__ == "__main__":
    countries = ["DE", "FR"]
    for number in range(100):
        invoice.enqueue(Order(number=number, country=countries[number % 2], cents=1000))
    print("enqueued 100 invoices; half of them are wrong")
