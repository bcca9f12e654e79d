"""Ctrl-C between batches."""

from __future__ import annotations

import os
import signal

import pytest

from processor.admin.transactions import Order
from processor.cli.stopping import between_batches


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_interrupt_lets_the_batch_end() -> None:
    before = signal.getsignal(signal.SIGINT)
    counted: list[int] = []
    with between_batches() as stop:
        order = stop.heard_by(Order(by="eva@desk", done=counted.append))
        order.done(3)
        interrupt()
        counted.append(0)  # the batch goes on
        with pytest.raises(KeyboardInterrupt):
            order.done(4)
    assert counted == [3, 0, 4], "what was done is counted before it stops"
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_interrupt_stops_at_once() -> None:
    with between_batches():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_a_pause_hears_it() -> None:
    with between_batches() as stop:
        stop.pause(0.0)
        stop.check()
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            stop.pause(3600.0)
