"""A real local Kafka for development, demos and tests: no Docker, no installed Java, no Maven.

Apache Kafka in KRaft mode, from its published jars (`dev_artifacts`), on a Java found or brought along (`dev_java`),
one process per broker (`dev_node`). A data folder is a cluster: its Kafka version, its number of brokers and its ports
are written there, so a restart finds its data at the old address.

    with DevBroker(DevBrokerConfig(data_dir=folder, properties=TEST_PROPERTIES)) as kafka:
        ...  # kafka.bootstrap
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import json
import random
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypedDict

from processor import events
from processor.broker.dev.artifacts import DEFAULT_VERSION, Progress, cache_dir, fetch, locked, versions
from processor.broker.dev.java import find_java
from processor.broker.dev.node import DevBrokerFailed, DevNode, JavaCommand, PortTaken
from processor.errors import DevBrokerError

__all__ = [
    "DEFAULT_VERSION",
    "TEST_PROPERTIES",
    "DevBroker",
    "DevBrokerConfig",
    "DevBrokerFailed",
    "PortTaken",
    "versions",
]

log = events.logger(__name__)

TEST_PROPERTIES: Mapping[str, str] = MappingProxyType(
    {
        "auto.create.topics.enable": "false",
        "group.consumer.min.heartbeat.interval.ms": "100",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
        "log.initial.task.delay.ms": "1000",
        "log.retention.check.interval.ms": "1000",
        "log.segment.delete.delay.ms": "1000",
        "offsets.topic.num.partitions": "4",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "transaction.state.log.num.partitions": "4",
    }
)
"""Server settings with short timers, so that tests see rebalances, retention and compaction within seconds."""

# Below the range from which systems take the ports of outgoing connections (32768 and up on Linux, 49152 and up
# elsewhere): a client that retries a dead port inside that range can be given this very port and talk to itself.
_PORTS = range(20_000, 32_000)
_START_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DevBrokerConfig:
    """What cluster to run."""

    data_dir: Path
    """The cluster's folder; made if missing, kept on stop."""
    brokers: int = 1
    """1, or 3 for a cluster whose internal topics have three replicas."""
    port: int | None = None
    """Port of broker 0, the others follow; None picks free ones and remembers them in the data folder."""
    advertised_port: int | None = None
    """Port of a proxy to broker 0 (broker n: n more). Adds a listener that advertises it, see `proxy_target`."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Server settings; they win over ours."""
    heap_mb: int = 384
    """Largest Java heap of one broker."""
    java: Path | None = None
    """The Java to use; None finds one."""
    version: str = DEFAULT_VERSION
    """Kafka version, one of `versions()`."""
    start_timeout_s: float = 90.0
    """How long all brokers together may take to answer."""

    def __post_init__(self) -> None:
        if self.brokers not in (1, 3):
            raise DevBrokerError(f"a local Kafka has 1 or 3 brokers, not {self.brokers}", hint="choose 1 or 3")
        if self.version not in versions():
            raise DevBrokerError(f"Kafka {self.version} is not known", hint=f"choose one of {', '.join(versions())}")


class _Ports(TypedDict):
    client: int
    controller: int
    proxied: int


class _Cluster(TypedDict):
    """What the data folder remembers."""

    version: str
    cluster_id: str
    nodes: list[_Ports]


class DevBroker:
    """A local Kafka cluster of one or three brokers, alive from `start` to `stop`."""

    def __init__(self, config: DevBrokerConfig, *, progress: Progress | None = None) -> None:
        self.config = config
        self._progress = progress
        self._cluster = _read(config.data_dir)
        self._nodes: list[DevNode] = []
        self._command: JavaCommand | None = None
        self._detached = False
        if self._cluster is not None:
            self._check_same_cluster(self._cluster)
            self._make_nodes(self._cluster)

    @classmethod
    def at(cls, data_dir: Path) -> DevBroker:
        """The cluster that lives in `data_dir`, to ask for its state or to stop it, whoever started it."""
        cluster = _read(data_dir)
        if cluster is None:
            raise DevBrokerError(f"there is no local Kafka in {data_dir}", hint="start one, or name its data folder")
        return cls(DevBrokerConfig(data_dir=data_dir, brokers=len(cluster["nodes"]), version=cluster["version"]))

    def start(self, *, detached: bool = False) -> None:
        """Start every broker and return when all answer.

        1. Lock the folder. 2. Find Java and the jars. 3. Choose ports. 4. Write settings, format new storage. 5. Start
        the processes and wait. If it was a port that we chose ourselves, start again from 3 with others.
        Not detached, the brokers end with this Python process.
        """
        with self._alone():
            if self.is_running():
                raise DevBrokerFailed(
                    f"a broker already runs on {self.config.data_dir}", hint="use it, or stop it first"
                )
            began = time.monotonic()
            self._command = self._find_command()
            self._detached = detached
            for tries_left in reversed(range(_START_TRIES)):
                self._choose_ports()
                try:
                    self._launch()
                    break
                except PortTaken:
                    if self.config.port is not None or not tries_left:
                        raise
        if not detached:
            atexit.register(self.stop)
        seconds = round(time.monotonic() - began, 2)
        log.info("dev_broker.started", extra={"bootstrap": self.bootstrap, "seconds": seconds})

    def stop(self, timeout_s: float = 15.0) -> None:
        """End every broker in good order; what still lives after `timeout_s` is killed. Data stays."""
        atexit.unregister(self.stop)
        for node in self._nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for node in self._nodes:
            if not node.wait_until_gone(deadline):
                log.warning("dev_broker.killed", extra={"pid": node.pid, "timeout_s": timeout_s})
                self._kill(node)

    def kill(self, node: int = 0) -> None:
        """End one broker by SIGKILL, as a crash would."""
        self._kill(self._nodes[node])

    def restart(self, node: int = 0) -> None:
        """Start one broker again after `kill`, or end it in good order and start it again."""
        target = self._nodes[node]
        target.signal(signal.SIGCONT)
        target.signal(signal.SIGTERM)
        if not target.wait_until_gone(time.monotonic() + self.config.start_timeout_s):
            self._kill(target)
        self._command = self._command or self._find_command()
        target.spawn(self._command, detached=self._detached)
        target.wait_until_ready(time.monotonic() + self.config.start_timeout_s)

    def pause(self, node: int = 0) -> None:
        """Freeze one broker (SIGSTOP): its connections stay open and nothing answers."""
        self._nodes[node].freeze(time.monotonic() + self.config.start_timeout_s)

    def resume(self, node: int = 0) -> None:
        """Let a paused broker go on."""
        self._nodes[node].signal(signal.SIGCONT)

    def is_running(self, node: int | None = None) -> bool:
        """Whether broker `node`, or any broker, has a live process."""
        chosen = self._nodes if node is None else [self._nodes[node]]
        return any(each.is_running() for each in chosen)

    @property
    def bootstrap(self) -> str:
        """`host:port` of every broker, for `bootstrap.servers`."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes)

    @property
    def proxied_bootstrap(self) -> str:
        """`host:port` of every proxy: a client that starts here is led through the proxies only."""
        first = self.config.advertised_port
        if first is None:
            raise DevBrokerError("this cluster has no proxied listener", hint="set advertised_port")
        return ",".join(f"127.0.0.1:{first + number}" for number in range(self.config.brokers))

    def proxy_target(self, node: int = 0) -> tuple[str, int]:
        """Where the proxy of broker `node` must connect to: the listener that advertises the proxy's port."""
        return "127.0.0.1", self._known()["nodes"][node]["proxied"]

    @property
    def pids(self) -> list[int | None]:
        """Process id of every broker; None for one that does not run."""
        return [node.pid for node in self._nodes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _find_command(self) -> JavaCommand:
        java = find_java(self.config.java)
        jars = fetch(locked(self.config.version), cache_dir(), self._progress)
        return JavaCommand(java=java, classpath=jars, heap_mb=self.config.heap_mb)

    def _launch(self) -> None:
        command, cluster = self._command, self._known()
        if command is None:
            raise DevBrokerError("no Java was chosen yet", hint="call start first")
        try:
            for number, node in enumerate(self._nodes):
                node.prepare(command, cluster["cluster_id"], self._server_properties(number))
            for node in self._nodes:
                node.spawn(command, detached=self._detached)
            deadline = time.monotonic() + self.config.start_timeout_s
            for node in self._nodes:
                node.wait_until_ready(deadline)
        except BaseException:
            # Also on Ctrl-C: a half-started cluster must not be left behind.
            for node in self._nodes:
                self._kill(node)
            raise

    def _kill(self, node: DevNode) -> None:
        node.signal(signal.SIGKILL)
        node.wait_until_gone(time.monotonic() + self.config.start_timeout_s)

    def _known(self) -> _Cluster:
        if self._cluster is None:
            raise DevBrokerError("this cluster was never started", hint="call start first")
        return self._cluster

    def _check_same_cluster(self, cluster: _Cluster) -> None:
        wanted = (self.config.version, self.config.brokers)
        if wanted != (cluster["version"], len(cluster["nodes"])):
            raise DevBrokerError(
                f"{self.config.data_dir} holds Kafka {cluster['version']} with {len(cluster['nodes'])} broker(s), "
                f"not {wanted[0]} with {wanted[1]}",
                hint="choose another data folder, or the version and number that made this one",
            )

    def _choose_ports(self) -> None:
        known = self._cluster
        nodes = known["nodes"] if known else []
        cluster = _Cluster(
            version=self.config.version,
            cluster_id=known["cluster_id"] if known else _new_cluster_id(),
            nodes=_plan_ports(self.config, nodes),
        )
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        _write(self.config.data_dir, cluster)
        self._cluster = cluster
        self._make_nodes(cluster)

    def _make_nodes(self, cluster: _Cluster) -> None:
        folder = self.config.data_dir
        self._nodes = [DevNode(folder / f"node-{n}", ports["client"]) for n, ports in enumerate(cluster["nodes"])]

    def _server_properties(self, number: int) -> dict[str, str]:
        cluster = self._known()
        ports = cluster["nodes"][number]
        replicas = str(self.config.brokers)
        in_sync = "2" if self.config.brokers == 3 else "1"
        listeners = f"CLIENT://127.0.0.1:{ports['client']}"
        advertised = listeners
        if self.config.advertised_port is not None:
            listeners += f",PROXIED://127.0.0.1:{ports['proxied']}"
            advertised += f",PROXIED://127.0.0.1:{self.config.advertised_port + number}"
        voters = (f"{n}@127.0.0.1:{other['controller']}" for n, other in enumerate(cluster["nodes"]))
        return {
            "process.roles": "broker,controller",
            "node.id": str(number),
            # A killed broker is let in again only when its old session is over: 9 s by default. With 1 s a busy machine
            # fenced a broker that was merely slow (seen at a load of 20 on two cores).
            "broker.session.timeout.ms": "6000" if self.config.brokers == 3 else "4000",
            "broker.heartbeat.interval.ms": "250",
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{ports['controller']}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.config.data_dir.absolute() / f"node-{number}" / "log"),
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "12",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "12",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            **self.config.properties,
        }

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.config.data_dir / "start.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _read(folder: Path) -> _Cluster | None:
    try:
        cluster: _Cluster = json.loads((folder / "cluster.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DevBrokerError(f"{folder / 'cluster.json'} cannot be read: {error}", hint="delete the folder") from error
    return cluster


def _write(folder: Path, cluster: _Cluster) -> None:
    draft = folder / "cluster.json.new"
    draft.write_text(json.dumps(cluster, indent=1), "utf-8")
    draft.replace(folder / "cluster.json")


def _new_cluster_id() -> str:
    # Kafka's tools take an id that begins with "-" for an option.
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=").replace("-", "_")


def _plan_ports(config: DevBrokerConfig, known: list[_Ports]) -> list[_Ports]:
    """Keep the remembered ports while they are free, take the asked ones in any case, draw the rest."""
    taken: set[int] = set()
    if config.advertised_port is not None:
        taken.update(range(config.advertised_port, config.advertised_port + config.brokers))
    plan: list[_Ports] = []
    for number in range(config.brokers):
        old = known[number] if known else None
        if config.port is None:
            client = _free_port(old and old["client"], taken)
        else:
            client = config.port + number
            if not _is_free(client):
                raise PortTaken(
                    f"port {client} is in use by another program", hint="choose another port, or stop that program"
                )
            taken.add(client)
        controller = _free_port(old and old["controller"], taken)
        plan.append(_Ports(client=client, controller=controller, proxied=_free_port(old and old["proxied"], taken)))
    return plan


def _free_port(preferred: int | None, taken: set[int]) -> int:
    if preferred is not None and preferred not in taken and _is_free(preferred):
        taken.add(preferred)
        return preferred
    for port in random.SystemRandom().sample(_PORTS, k=200):
        if port not in taken and _is_free(port):
            taken.add(port)
            return port
    raise DevBrokerFailed(f"no free port between {_PORTS.start} and {_PORTS.stop}", hint="choose a port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Java binds: a port whose last connections still wait in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
