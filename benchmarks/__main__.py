"""`python -m benchmarks`: run all benches, or some."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import asking, endurance, enqueue, latency, order, projection, retries, takeover, throughput
from benchmarks.rows import Row, failed, table, write
from benchmarks.world import Kit
from processor.broker.dev import DevBroker, DevBrokerConfig

BENCHES: dict[str, Callable[[Kit], list[Row]]] = {
    "noop": throughput.noop,
    "order": order.many_keys,
    "hotkey": order.hot_key,
    "latency": latency.start,
    "due": latency.due,
    "checkpoint": latency.checkpoint,
    "steps": throughput.steps,
    "kill": takeover.kill,
    "scaling": takeover.scaling,
    "third": takeover.third,
    "enqueue": enqueue.many,
    "limit": enqueue.limited,
    "asking": asking.old,
    "delays": retries.delays,
    "waiting": retries.waiting,
    "wave": retries.wave,
    "storm": retries.storm,
    "restore": endurance.restore,
    "memory": endurance.memory,
    "projection": projection.projection,
}
# Normal timers, but for two: nobody comes together here, so the first member need not wait for others; and on a busy
# machine a broker is slow, not dead.
PROPERTIES = {"group.initial.rebalance.delay.ms": "0", "broker.session.timeout.ms": "9000"}


def main() -> int:
    """Run, write, print; 1 if a bench did not get to a value. A bar that does not hold is not an error."""
    wanted = _arguments()
    logging.getLogger().addHandler(logging.NullHandler())
    # So that folders and processes of ours go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    out = Path(wanted.out)
    rows: list[Row] = []
    broken = False
    with _broker(wanted.bootstrap) as bootstrap:
        kit = Kit(bootstrap=bootstrap, scale=wanted.scale, say=_say)
        for name in wanted.only or BENCHES:
            began = time.monotonic()
            _say(f"--- {name} (load {os.getloadavg()[0]:.1f})")
            try:
                rows += BENCHES[name](kit)
            except Exception as error:  # noqa: BLE001  (the other benches can still say something)
                broken = True
                rows.append(failed(name, error))
                _say(rows[-1].bar)
            _say(f"--- {name}: {time.monotonic() - began:.0f} s")
            write(rows, out)
    print(table(rows))
    _say(f"written to {out}")
    return int(broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the engine on a real Kafka.")
    parser.add_argument("--only", action="append", choices=[*BENCHES], help="run this bench; several times for more")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual jobs and runs; 0.1 to try it out")
    parser.add_argument("--bootstrap", help="use this Kafka instead of starting one")
    parser.add_argument("--out", default="build/bench.json", help="where to write the rows (default: %(default)s)")
    return parser.parse_args()


@contextlib.contextmanager
def _broker(bootstrap: str | None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory(prefix="processor-bench-kafka-") as folder:
        _say("starting a broker")
        with DevBroker(DevBrokerConfig(data_dir=Path(folder), properties=PROPERTIES)) as kafka:
            yield kafka.bootstrap


_STARTED = time.monotonic()


def _say(text: str) -> None:
    sys.stderr.write(f"{time.monotonic() - _STARTED:6.0f} s  {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
