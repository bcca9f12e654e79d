"""Jobs of programs that know nothing of this package: a plain Kafka client writes them, a real worker runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer

from processor.states import State
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE

pytestmark = pytest.mark.timeout(240)

SAMPLE = Path(__file__).parents[2] / "examples" / "other-languages"


def test_jobs_of_a_plain_client_run(fleet: Fleet) -> None:
    producer = Producer({"bootstrap.servers": fleet.bootstrap, "partitioner": "murmur2_random"})
    topic = f"{fleet.namespace}.jobs.{QUEUE}"
    for place in range(20):
        job_id = f"order-{place}"
        job = json.dumps({"id": job_id, "type": "walk", "payload": {"items": 3}})
        for _ in range(2):
            producer.produce(topic, job, key=job_id, headers={"derived": "1"})
    producer.produce(topic, b'{"id": "bad", "tpye": "walk"}', key="bad")
    assert producer.flush(20) == 0
    fleet.start_ready("a")
    fleet.finish(f"order-{place}" for place in range(20))
    assert len(fleet.ledger("item")) == 60
    letter = fleet.dead_letter("undecodable")
    assert letter.raw == b'{"id": "bad", "tpye": "walk"}'
    assert "'tpye'" in (letter.failures or [])[0].message


@pytest.mark.slow
def test_the_sample_publishes_a_job(fleet: Fleet, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs node and npm on the PATH")
    shutil.copytree(SAMPLE, tmp_path / "sample")
    subprocess.run([npm, "install", "--no-audit", "--no-fund"], cwd=tmp_path / "sample", check=True, timeout=120)
    command = [node, "publish.mjs", fleet.bootstrap, fleet.namespace, QUEUE, '{"items": 3}', "walk"]
    done = subprocess.run(command, cwd=tmp_path / "sample", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    fleet.start_ready("a")
    assert fleet.end_of(job_id).state is State.SUCCEEDED
    assert len(fleet.ledger("item")) == 3
