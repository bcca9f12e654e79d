"""Which queues an app has, and which of them a worker serves."""

from __future__ import annotations

import pytest

from processor import App, Context
from processor.errors import UnknownQueue
from processor.process.service import ServeOptions, worker_config
from processor.wire.settings_sources import load_settings


def noop(ctx: Context) -> None:
    del ctx


def served(app: App, *queues: str) -> list[str]:
    """Names of the queues that a worker of this app serves."""
    made = worker_config(app, load_settings({}, env={}), "w-0", ServeOptions(queues=queues))
    return [queue.name for queue in made.queues]


def planned(app: App) -> set[str]:
    """Queues that topics are made for."""
    names = (spec.name.split(".") for spec in app.topic_plan())
    return {name[2] for name in names if name[1] == "jobs"}


def test_default_is_there_if_a_job_type_uses_it() -> None:
    app = App("shop", settings=load_settings({}, env={}))
    app.queue("bulk")
    app.job("one")(noop)
    assert served(app) == ["default"]
    assert planned(app) == {"default", "bulk"}


def test_default_that_nothing_uses_is_neither_made_nor_served() -> None:
    app = App("shop", settings=load_settings({}, env={}))
    app.queue("bulk")
    app.job("one", queue="bulk")(noop)
    assert served(app) == ["bulk"]
    assert planned(app) == {"bulk"}
    with pytest.raises(UnknownQueue):
        served(app, "default")


def test_a_declared_queue_without_job_types_is_made_and_served_when_named() -> None:
    app = App("shop", settings=load_settings({}, env={}))
    app.queue("bulk")
    app.queue("elsewhere")
    app.job("one", queue="bulk")(noop)
    assert planned(app) == {"bulk", "elsewhere"}
    assert served(app) == ["bulk"]
    assert served(app, "elsewhere") == ["elsewhere"]


def test_an_app_without_declarations_has_default() -> None:
    app = App("shop", settings=load_settings({}, env={}))
    assert served(app) == ["default"]
    assert planned(app) == {"default"}


def test_default_that_is_declared_is_made() -> None:
    app = App("shop", settings=load_settings({}, env={}))
    app.queue("default", partitions=3)
    app.queue("bulk")
    app.job("one", queue="bulk")(noop)
    assert planned(app) == {"default", "bulk"}
