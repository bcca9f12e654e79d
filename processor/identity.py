"""Who asks: what an operator's order and its audit record name."""

from __future__ import annotations

import getpass
import socket


def operator() -> str:
    """`user@host` of this process; a user without a name (a container's bare uid) is `?`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    return f"{user}@{socket.gethostname()}"
