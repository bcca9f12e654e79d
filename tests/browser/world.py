"""A shop as operators meet it: long names, long errors, jobs in every state, and people who have done things.

Everything runs: the handlers in a testbed, the projection in SQLite, the pages in a real server. What a testbed cannot
stop at (a job that is running, one in doubt) is written into its log as a worker would write it.
"""

from __future__ import annotations

from pydantic import BaseModel

from processor import App, Backoff, Context, Dead, JobType, Retry
from processor.admin.orders import Operator
from processor.admin.schedules import apply_schedules, pause_schedule
from processor.alert_kinds import AlertKind
from processor.broker.base import OutRecord
from processor.ops.actions import Actions, Why
from processor.ops.filters import parse
from processor.ops.kept import Kept
from processor.ops.projector import Projector
from processor.ops.queries import LetterSet, Queries
from processor.ops.roles import Role, User
from processor.ops.search import search_of
from processor.ops.store import Store
from processor.ops.watching.decision import Wish
from processor.states import State
from processor.testing import Testbed
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.records import AlertRecord, StatusRecord

NAMESPACE = "webshop-eu"
DAY = 86_400.0
LONG_QUEUE = "invoices-and-credit-notes-of-all-subsidiaries"
LONG_TYPE = "invoice.render_pdf_with_attachments_and_archive"
ORDER = 40_117
"""The order that a customer calls about."""
GATEWAY = (
    "HTTPSConnectionPool(host='payments.eu-west-1.internal.example.com', port=443): Max retries exceeded with url: "
    "/v3/charges?merchant=webshop-eu&capture=false (Caused by ConnectTimeoutError('Connection to "
    "payments.eu-west-1.internal.example.com timed out. (connect timeout=10)'))"
)


class Customer(BaseModel):
    """Who has ordered."""

    name: str
    email: str


class Order(BaseModel):
    """What was ordered."""

    order_id: int
    customer: Customer
    amount: int
    currency: str = "EUR"
    card: str = "Visa, ends in 0002"
    items: list[str] = []


class Catalogue(BaseModel):
    """A file to take in."""

    path: str
    supplier: str


NAMES = ("Jane Doe", "Łukasz Wiśniewski", "María-José Fernández de la Cuesta y Montenegro", "O'Brien & Sons", "李小龙")


def order(number: int, amount: int = 4_990, name: str = "") -> Order:
    """An order."""
    name = name or NAMES[number % len(NAMES)]
    customer = Customer(name=name, email=f"c{number}@example.com")
    items = [f"SKU-{number * 7 % 9973:05d}", "SKU-00042"]
    return Order(order_id=number, customer=customer, amount=amount, items=items)


class Shop:
    """The app. `bank` and `printer` say what works."""

    def __init__(self) -> None:
        self.bank = self.printer = False
        self.app = app = App(NAMESPACE)
        app.queue("orders", partitions=3)
        app.queue("mail", partitions=2)
        app.queue("imports", partitions=2)
        app.queue(LONG_QUEUE, partitions=2)

        @app.job(
            "order.charge",
            queue="orders",
            payload=Order,
            search=["order_id", "customer.name", "customer.email"],
            retry=Retry(3, Backoff("5s", "30s")).on(ValueError, Dead("the amount is wrong")),
        )
        def charge(ctx: Context, p: Order) -> int:
            ctx.step("reserve", lambda: p.order_id)
            if p.amount < 0:
                raise ValueError(f"order {p.order_id}: amount {p.amount} is negative")
            if p.amount == 0 and not self.bank:
                raise ConnectionError(GATEWAY)
            return p.amount

        @app.job(LONG_TYPE, queue=LONG_QUEUE, payload=Order, search=["order_id"], retry=Retry(2, Backoff("30s")))
        def render(ctx: Context, p: Order) -> str:
            if not self.printer:
                raise UnicodeEncodeError("latin-1", p.customer.name, 0, 1, "ordinal not in range(256)")
            return f"s3://invoices/2026/{p.order_id}.pdf"

        @app.job("mail.send", queue="mail", payload=Order, search=["order_id"])
        def mail(ctx: Context, p: Order) -> None:
            """Says nothing."""

        @app.job("order.fulfil", queue="orders", payload=Order, search=["order_id"])
        def fulfil(ctx: Context, p: Order) -> None:
            ctx.spawn(mail, p)
            ctx.spawn(charge, p)

        self.charge, self.render, self.mail, self.fulfil = charge, render, mail, fulfil
        self.take_in = self._imports()
        self._schedules()

    def _imports(self) -> JobType[Catalogue, int]:
        slowly = Retry(5, Backoff("10m"))

        @self.app.job("catalogue.import", queue="imports", payload=Catalogue, search=["supplier"], retry=slowly)
        def take_in(ctx: Context, p: Catalogue) -> int:
            for row in ctx.each("rows", lambda after: range((after or 0) + 1, 400), every="1s", total=400):
                if row == 212:
                    raise KeyError(f"row {row}: no column 'price'")
            return 400

        return take_in

    def _schedules(self) -> None:
        everything = Catalogue(path="s3://in/all.csv", supplier="all")
        app = self.app
        app.schedule(
            "nightly-catalogue-of-all-suppliers", self.take_in, payload=everything, cron="0 2 * * *", tz="Europe/Berlin"
        )
        app.schedule("reminders", self.mail, payload=order(1), every="15m", jitter="30s")


class World:
    """A shop, its workers, and what operators see of it; nothing has happened before `live`.

    Args:
        store: where the projection goes.
        workers: processes.
    """

    def __init__(self, store: Store, *, workers: int = 2) -> None:
        self.shop = Shop()
        self.store = store
        self.bed = Testbed(workers=workers)
        # A morning in November, so that dates are as wide as they get.
        self.bed.runtime.clock.advance(331 * DAY + 9.2 * 3600)
        self.bed._open(self.shop.app)
        clock = self.bed.runtime.clock
        self.projector = Projector(self.bed.broker, store, search=search_of(self.shop.app), clock=clock)
        self.projector.catch_up()
        self.queries = Queries(store)
        self.jobs: dict[str, str] = {}
        """Ids of jobs that a page is about, by what they are an example of."""

    def close(self) -> None:
        """End it."""
        self.projector.close()
        self.bed.close()

    def live(self, minutes: int = 12, orders: int = 10) -> None:
        """Some minutes pass, each with so many orders."""
        bed, shop = self.bed, self.shop
        bed.enqueue(shop.take_in, Catalogue(path="s3://in/2026-11-28/acme.csv", supplier="ACME GmbH & Co. KG"))
        self.jobs["dead"] = bed.enqueue(shop.charge, order(ORDER, -4_990, "Jane Doe")).id
        self.jobs["parent"] = bed.enqueue(shop.fulfil, order(ORDER + 1)).id
        for minute in range(minutes):
            for number in range(orders):
                self._one(41_000 + minute * 100 + number)
            bed.advance("1m")
        self.jobs["scheduled"] = bed.enqueue(shop.mail, order(44_001), delay="2h").id
        self.projector.catch_up()
        self.jobs["long error"] = self._found("error:ConnectionError state:dead")
        self.jobs["succeeded"] = self._found("state:succeeded type:order.charge")
        self._people()
        self._moments()
        self.projector.catch_up()

    def _one(self, number: int) -> None:
        bed, shop = self.bed, self.shop
        if number % 9 == 0:
            bed.enqueue(shop.charge, order(number, 0))
        elif number % 11 == 0:
            bed.enqueue(shop.charge, order(number, -number % 7000))
        elif number % 7 == 0:
            bed.enqueue(shop.render, order(number))
        else:
            bed.enqueue(shop.charge if number % 2 else shop.mail, order(number))

    def _found(self, text: str) -> str:
        return str(self.queries.jobs(parse(text, self.bed.runtime.clock.now_ms())).rows[0]["id"])

    def _people(self) -> None:
        """What operators have done."""
        app, broker, clock = self.shop.app, self.bed.broker, self.bed.runtime.clock
        apply_schedules(broker, NAMESPACE, app.schedules.values(), Operator(by="worker-1/0", clock=clock))
        eve = Operator(by="eve@ops-laptop", reason="the supplier sends nonsense until Monday", clock=clock)
        pause_schedule(broker, NAMESPACE, "nightly-catalogue-of-all-suppliers", eve)
        actions = Actions(app, self.queries, clock)
        told = "https://tickets.example.com/browse/OPS-48213 says that the mail provider throttles us until 10:30"
        actions.pause("queue:mail", Why(user=_user("constantin.featherstonehaugh"), reason=told))
        actions.pause("type:catalogue.import", Why(user=_user("eve"), reason="the file is broken"))
        wrong = self.queries.letters(state="open", type_="order.charge", limit=7).rows
        chosen = [f"{row['partition']}@{row['offset']}" for row in wrong]
        why = Why(user=_user("jane"), reason="test orders of the load test")
        actions.discard(LetterSet(addresses=chosen[:3]), 3, why)
        self.projector.catch_up()
        actions.redrive(LetterSet(addresses=chosen[3:]), 4, Why(user=_user("jane"), reason="the bank is back"))
        self.bed.advance("40s")
        self.jobs["retrying"] = self.bed.enqueue(self.shop.charge, order(44_000, 0)).id
        self.bed.advance("8s")
        kept = Kept(self.store)
        kept.save(
            "Payment failures of today", "type:order.charge state:dead since:24h", "eve@dashboard", clock.now_ms()
        )
        kept.save("ACME", 'supplier:"ACME GmbH & Co. KG"', "jane@dashboard", clock.now_ms())
        kept.watch("ACME", Wish(at_least=10, hold_ms=300_000), "jane@dashboard", clock.now_ms())

    def _moments(self) -> None:
        """What would not stand still: jobs as they are just now, and the words of workers."""
        bed, shop, now = self.bed, self.shop, self.bed.runtime.clock.now_ms()
        for number in range(12):
            bed.enqueue(shop.mail, order(45_000 + number))
        self.jobs["queued"] = bed.enqueue(shop.mail, order(45_900)).id
        supplier = Catalogue(path="s3://in/2026-11-28/northwind.csv", supplier="Northwind")
        going = {
            "running": StatusRecord("", 1, "catalogue.import", "imports", State.RUNNING, now - 70_000, 1, "worker-1/0"),
            "waiting": StatusRecord(
                "", 1, "catalogue.import", "imports", State.WAITING, now - 900_000, 1, "worker-2/0"
            ),
            "in doubt": StatusRecord("", 1, "order.charge", "orders", State.IN_DOUBT, now - 2_400_000, 2, "worker-2/0"),
            "killed": StatusRecord("", 1, "order.charge", "orders", State.KILLED, now - 500_000, 1, "worker-2/0"),
        }
        producer = bed.broker.producer()
        for name, status in going.items():
            if status.queue == "imports":
                job_id = bed.enqueue(shop.take_in, supplier).id
            else:
                job_id = bed.enqueue(shop.charge, order(45_999)).id
            self.jobs[name] = job_id
            status = status._replace(id=job_id)
            if name == "running":
                status = status._replace(done=41_200.0, total=180_000.0, note="Northwind, file 3 of 11: prices in GBP")
            producer.append(OutRecord(topics.status_topic(NAMESPACE), job_id.encode(), encode(status)))
        held = AlertRecord(
            AlertKind.HELD,
            "orders-2",
            now - 120_000,
            "worker-2/0",
            "partition 2 of queue orders is held: a checkpoint cannot be read: UndecodableRecord: 0xff at 8812",
            queue="orders",
        )
        producer.append(OutRecord(topics.alerts_topic(NAMESPACE), held.subject.encode(), encode(held)))
        producer.flush(5)
        producer.close()


def _user(name: str) -> User:
    return User(name=name, role=Role.OPERATOR)
