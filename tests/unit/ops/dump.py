"""Everything a projection holds, to compare two of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from processor.ops import tables
from processor.ops.store import Store


def dump(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All tables but what tells of the projection itself and of the batches in which it was made."""
    with store.engine.connect() as sql:
        return {
            table.name: sorted((dict(row) for row in sql.execute(select(table)).mappings()), key=repr)
            for table in tables.metadata.sorted_tables
            if table not in (tables.facts, tables.changes)
        }
