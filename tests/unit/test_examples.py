"""The examples do what their READMEs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine

from processor.broker.memory import MemoryBroker
from processor.outbox.relay import Relay
from processor.testing import Testbed
from tests.loading import load_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_first_job_greets() -> None:
    example = load_file(EXAMPLES / "first-job" / "example.py", "example_first_job")
    with Testbed() as bed:
        job = bed.enqueue(example.greet, example.Greeting(name="world", times=2))
        bed.drain()
        assert bed.result(job) == ["Hello, world!", "Hello, world!"]


def test_import_resumes_after_a_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load_file(EXAMPLES / "resume-import" / "example.py", "example_resume_import")
    orders = tmp_path / "orders.csv"
    orders.write_text("".join(f"order-{n},{-50 if n % 10 == 0 else 100}\n" for n in range(1, 301)), "utf-8")
    with Testbed() as bed:
        job = bed.enqueue(example.import_orders, example.Import(path=orders))
        bed.crash_worker(at="rows", after=150)
        bed.drain()
        assert bed.result(job) == example.Tally(orders=300, refunds=30, cents=270 * 100 - 30 * 50)
        assert bed.runs(job, "count") == 1
        assert bed.runs(job, "report") == 1
        assert bed.reprocessed(job, "rows") <= bed.checkpoint_gap("rows")
    assert capsys.readouterr().out == "report: 300 orders, 30 refunds\n"


def test_invoices_of_one_country_are_written_again_at_the_right_rate() -> None:
    example = load_file(EXAMPLES / "replay-invoices" / "example.py", "example_replay_invoices")
    with Testbed(example.app) as bed:
        orders = [example.Order(number=number, country=("DE", "FR")[number % 2], cents=1000) for number in range(10)]
        jobs = [bed.enqueue(example.invoice, order) for order in orders]
        bed.drain()
        assert {bed.result(job) for job in jobs} == {1190}
        example.RATES["FR"] = 20
        again = bed.replay(where=("country=FR",))
        bed.drain()
        assert [bed.result(example.app.handle(job)) for job in again] == [1200] * 5
        assert {bed.result(job) for job in jobs} == {1190}, "what was is not changed"


def test_a_double_click_is_one_charge_and_a_full_queue_is_an_answer() -> None:
    example = load_file(EXAMPLES / "publish-orders" / "example.py", "example_publish_orders")
    with Testbed(example.app) as bed:
        order = example.Order(number="order-7", cents=1200)
        clicks = [bed.enqueue(example.charge, order, idempotency_key=order.number) for _ in range(2)]
        bed.drain()
        assert clicks[0].id == clicks[1].id
        assert bed.result(clicks[0]) == "receipt for order-7"
        assert bed.runs(clicks[0], "charge") == 1


def test_what_the_shop_answers() -> None:
    example = load_file(EXAMPLES / "publish-orders" / "example.py", "example_publish_orders_2")
    broker = MemoryBroker()
    broker.admin().create_topics(example.app.topic_plan())
    example.app.bind(broker)
    try:
        first, second = (example.place(example.Order(number="order-7", cents=1200)) for _ in range(2))
        assert (first["status"], first) == (202, second)
        answers = (example.place(example.Order(number=f"order-{n}", cents=1)) for n in range(100, 12_000))
        full = next(answer for answer in answers if answer["status"] == 503)
        assert full["retry_after"] >= 1
    finally:
        example.app.close()


def test_an_order_and_its_job_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    example = load_file(EXAMPLES / "store-and-publish" / "example.py", "example_store_and_publish")
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    example.make_tables(engine)
    with Testbed(example.app) as bed:
        job = example.place(engine, example.Order(number="order-7", cents=1200))
        assert example.place(engine, example.Order(number="order-7", cents=1200)) is None
        relay = Relay(engine, example.app.client())
        assert relay.waiting().rows == 1, "of the order that was refused nothing is left"
        assert relay.drain() == (1, 0)
        bed.drain()
        assert bed.result(example.app.handle(job)) == "label of order-7"
    engine.dispose()
