"""docs/configuration.md and docs/metrics.md, made from the catalogues by `python -m processor.cli.reference`.

A test holds the pages to the code, so neither can be edited alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from processor.wire.metrics import CATALOGUE, MAX_LABEL_VALUES, OTHER, Metric
from processor.wire.settings import GROUPS, REFUSED_CLIENT_PROPERTIES
from processor.wire.settings_sources import Origin, load_settings, origins

_MADE = "<!-- Made from the code by `python -m processor.cli.reference`; do not edit. -->"

_CONFIGURATION = """\
# Configuration

{made}

A setting comes from, first wins:

1. a flag of the command line or an argument of `App`,
2. the environment: `PROCESSOR_`, the group, `__`, the name, as in `PROCESSOR_WORKER__LINGER=10ms`,
3. the file `.env` of the working directory (for development),
4. the file `processor.toml` of the working directory: `[worker]`, then `linger = "10ms"`,
5. the default.

Unknown names are errors. `processor config show --origin` says where each value comes from. Lengths of time are
written `500ms`, `30s`, `5m`, `1h30m`, `7d` or as a number of seconds; sizes `256KiB`, `1MB` or as a number of bytes.
A password can be read from a file: add `_file` to its name, `PROCESSOR_KAFKA__SASL_PASSWORD_FILE=/run/secrets/kafka`.
"""

_CLIENT = """\
## [kafka.client]

Any other [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), passed on as
it is. In the environment write `_` for each dot: `PROCESSOR_KAFKA__CLIENT__SOCKET_KEEPALIVE_ENABLE=true`. These are
refused, because the guarantees depend on them:
"""

_METRICS = """\
# Metrics

{made}

`processor worker --http PORT` serves these at `/metrics`. No id of a job is ever a label; of an open label (`queue`,
`type`, `reason`) each metric keeps {limit} values, later ones count as `{other}`.
"""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def render_settings_markdown() -> str:
    """docs/configuration.md."""
    parts = [_CONFIGURATION.format(made=_MADE)]
    every = origins(load_settings(env={}, toml_path=_no_file()))
    for group, model in GROUPS.items():
        rows = [_setting(origin) for origin in every if origin.name.startswith(f"{group}.")]
        parts.append(f"## [{group}]\n\n{model.__doc__}\n\n{table(('name', 'default', 'meaning'), rows)}")
        if group == "kafka":
            refused = sorted(REFUSED_CLIENT_PROPERTIES.items())
            parts.append(_CLIENT + "\n" + table(("property", "why"), [(f"`{name}`", why) for name, why in refused]))
    return "\n".join(parts)


def _no_file() -> Path:
    # The page shows the defaults, whatever lies in the working directory.
    return Path("/dev/null")


def _setting(origin: Origin) -> tuple[str, str, str]:
    default = f"`{origin.default}`" if origin.default else ""
    return f"`{origin.name.partition('.')[2]}`", default, origin.help


def render_metrics_markdown() -> str:
    """docs/metrics.md."""
    rows = [_metric(metric) for metric in CATALOGUE]
    head = _METRICS.format(made=_MADE, limit=MAX_LABEL_VALUES, other=OTHER)
    return head + "\n" + table(("metric", "kind", "labels", "meaning"), rows)


def _metric(metric: Metric) -> tuple[str, str, str, str]:
    labels = [
        f"`{label}`" + (f" ({', '.join(metric.values)})" if metric.values and label == metric.labels[-1] else "")
        for label in metric.labels
    ]
    kind = f"{metric.kind}, {metric.unit}" if metric.unit else metric.kind
    return f"`{metric.full_name}`", kind, ", ".join(labels), metric.help


def main() -> None:
    """Write the pages into the checkout's docs folder."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    (docs / "configuration.md").write_text(render_settings_markdown(), "utf-8")
    (docs / "metrics.md").write_text(render_metrics_markdown(), "utf-8")


if __name__ == "__main__":
    main()
