"""Every page shows the command behind it, every action the command that does the same; and there are such commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from html import unescape

import click
import pytest

from processor.cli.main import root
from processor.ops.login import ProxyLogin, networks
from processor.ops.store import Store
from processor.ops.web.serve import create
from tests.browser.serving import HEADER, USERS
from tests.browser.sights import SIGHTS, address
from tests.browser.world import NAMESPACE, World
from tests.unit.ops.client import Client

pytestmark = pytest.mark.timeout(240)
CODE = re.compile(r"<code>(processor .*?)</code>", re.S)
FORM = re.compile(r'<form method="post".*?</form>', re.S)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What is on each page."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('pages')}/p.sqlite", NAMESPACE)
    world = World(store, workers=1)
    world.live(minutes=2, orders=30)
    login = ProxyLogin(USERS, HEADER, networks("127.0.0.1"))
    application = create(world.shop.app, store, login, clock=world.bed.runtime.clock)
    found = {}
    for name, sight in SIGHTS.items():
        if sight.status == 200 and not sight.empty:
            answer = Client(application, "", "127.0.0.1", {HEADER: sight.user}).get(
                address(sight, "http://localhost", world)
            )
            assert answer.status_code == 200, answer.text
            found[name] = answer.text
    yield found
    world.close()
    store.close()


def parsed(text: str) -> str:
    """The command that a line is, by its own parser; an unknown name or option raises."""
    words = shlex.split(re.sub(r"<[^>]+>", "", unescape(text)))
    command: click.Command = root
    context = click.Context(root, info_name=words.pop(0))
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, text
        command = found
        context = click.Context(found, info_name=name, parent=context)
    return command.make_context(context.info_name, words, parent=context.parent).command_path


def test_each_page_names_the_command_behind_it(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        if SIGHTS[name].user == "care" or name == "jobs-bad-filter":
            continue
        behind = re.findall(r'<p class="dim small behind">(.*?)</p>', page, re.S)
        assert len(behind) == 1, name
        assert CODE.search(behind[0]), name


def test_each_action_shows_its_command(pages: dict[str, str]) -> None:
    forms = [(name, form) for name, page in pages.items() if SIGHTS[name].user != "care" for form in FORM.findall(page)]
    # Saved filters are the dashboard's own: there is no command for them.
    without = [(name, form) for name, form in forms if not CODE.search(form) and "/do/filters/" not in form]
    # The list of letters is one form, whose action is there where a letter can be ticked.
    assert [each for each in without if "button" in each[1]] == []
    assert len(forms) > 20


def test_every_command_that_is_shown_is_one(pages: dict[str, str]) -> None:
    shown = {code for page in pages.values() for code in CODE.findall(page)}
    commands = {parsed(code) for code in shown}
    assert {"processor dlq redrive", "processor queue pause", "processor replay run", "processor job retry"} <= commands
    with pytest.raises(click.UsageError):
        parsed("processor dlq list --nothing")
