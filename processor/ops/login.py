"""Who is there: nobody (on this machine only), a user with a password, or whom a trusted proxy names.

Users are lines of a file, `name:role:hash`; `processor dashboard --new-user NAME:ROLE` prints one. `role@orders,mail`
limits the role to these queues. Behind a proxy that logs people in, the hash is left out. Whoever is not in the file is
refused: nothing is open by default.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from processor.errors import SettingsError
from processor.ops.errors import LoginRequired, NotAllowed
from processor.ops.roles import Role, User

_REMEMBERED = 1000
"""Logins that need no second look: one look costs some 50 ms and 64 MB by design."""

QUEUE_NAME = re.compile(r"[a-z0-9-]{1,60}")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Users = Mapping[str, tuple[User, str]]
"""By name: the user, and the hash of the password (empty: none, a proxy logs in)."""


def new_user(name: str, role: str, password: str) -> str:
    """A line of the users' file. `role` may be limited to queues: `care@orders,mail`.

    Raises:
        SettingsError: the name, the role or a queue cannot be one.
    """
    checked_user(name, role)
    return f"{name}:{role}:{PasswordHasher().hash(password) if password else ''}"


def read_users(path: str) -> dict[str, tuple[User, str]]:
    """Name -> user and hash (empty: no password, a proxy logs in).

    Raises:
        SettingsError: there is no such file, or a line of it is none.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the users' file cannot be read: {error}",
            hint="processor dashboard --new-user NAME:operator prints a line for it",
        ) from error
    users: dict[str, tuple[User, str]] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        parts = text.split(":", 2)
        if len(parts) != 3:
            raise SettingsError(
                f"{path}, line {number}: this is no user", hint="write name:role:hash, or name:role@queue:hash"
            )
        if parts[0] in users:
            # The later line would win in silence: perhaps with more than the earlier one was meant to allow.
            raise SettingsError(
                f"{path}, line {number}: user {parts[0]} is there already", hint="leave one of them out"
            )
        users[parts[0]] = (checked_user(parts[0], parts[1]), parts[2])
    return users


def checked_user(name: str, text: str) -> User:
    """A user by name and role, as a line of the file has them.

    Raises:
        SettingsError: they cannot be that.
    """
    role, limited, queues = text.partition("@")
    if not name or not name.isprintable() or len(name) > 100 or ":" in name:
        raise SettingsError(f"user name {name[:60]!r} is not allowed", hint="use up to 100 letters, without ':'")
    if role not in tuple(Role):
        raise SettingsError(f"user {name}: there is no role {role[:60]!r}", hint=f"use {', '.join(Role)}")
    if not limited:
        return User(name=name, role=Role(role))
    named = frozenset(queue.strip() for queue in queues.split(","))
    stray = next((queue for queue in sorted(named) if not QUEUE_NAME.fullmatch(queue)), None)
    if stray is not None:
        # Left out, a name too many or too few would open or close a queue in silence.
        raise SettingsError(
            f"user {name}: {stray[:60]!r} is no queue", hint="write care@orders,mail: names, and commas"
        )
    return User(name=name, role=Role(role), queues=named)


class NoLogin:
    """Everybody on this machine is `admin`. Only for a loopback address."""

    challenge = ""
    entrance = ""

    def user(self, headers: Mapping[str, str], peer: str) -> User:
        """Whoever asks.

        Raises:
            NotAllowed: they ask from elsewhere.
        """
        if not _is_loopback(peer):
            raise NotAllowed("without login only this machine may ask", hint="set dashboard.users_file")
        return User(name=os.environ.get("USER") or "local", role=Role.ADMIN)


class BasicLogin:
    """Name and password with every request (RFC 7617); put TLS in front of it."""

    challenge = 'Basic realm="processor", charset="UTF-8"'
    entrance = ""

    def __init__(self, users: Users) -> None:
        self._users = dict(users)
        self._hasher = PasswordHasher()
        # Who is not known takes as long as a wrong password, so that names cannot be found out.
        self._nobody = self._hasher.hash(os.urandom(16).hex())
        self._secret = os.urandom(32)
        self._good: dict[bytes, str] = {}
        self._one_at_a_time = threading.Lock()

    def user(self, headers: Mapping[str, str], peer: str) -> User:
        """Whose name and password came.

        Raises:
            LoginRequired: none came, or wrong ones.
        """
        name, password = _credentials(headers.get("authorization", ""))
        user, hashed = self._users.get(name, (User(name=name, role=Role.VIEWER), ""))
        known = hmac.digest(self._secret, f"{name}\0{hashed}\0{password}".encode(), hashlib.sha256)
        if self._good.get(known) != name:
            with self._one_at_a_time:
                self._verify(name, hashed, password)
            if len(self._good) >= _REMEMBERED:
                self._good.clear()
            self._good[known] = name
        return user

    def named(self, name: str) -> User | None:
        """The user of this name who has a password."""
        user, hashed = self._users.get(name, (None, ""))
        return user if hashed else None

    def _verify(self, name: str, hashed: str, password: str) -> None:
        try:
            self._hasher.verify(hashed or self._nobody, password)
        except (VerificationError, InvalidHashError) as error:
            raise LoginRequired("name or password is wrong") from error
        if not hashed:
            raise LoginRequired(f"user {name} has no password here")


class ProxyLogin:
    """A proxy in front logs people in and names them in a header."""

    challenge = ""
    entrance = ""

    def __init__(self, users: Users, header: str, trusted: Sequence[Network]) -> None:
        self._users = dict(users)
        self._header = header.lower()
        self._trusted = trusted

    def user(self, headers: Mapping[str, str], peer: str) -> User:
        """Whom the proxy names.

        Raises:
            NotAllowed: the request came past the proxy, or the user has no role.
            LoginRequired: the proxy names nobody.
        """
        if not _within(peer, self._trusted):
            raise NotAllowed(f"{peer} is no trusted proxy", hint="dashboard.trusted_proxies names those that are")
        name = headers.get(self._header, "").strip()
        if not name:
            raise LoginRequired(f"the proxy sent no {self._header}")
        if name not in self._users:
            raise NotAllowed(f"user {name[:100]} has no role here", hint="the users' file gives roles")
        return self._users[name][0]


class Login(Protocol):
    """How people get in."""

    @property
    def challenge(self) -> str:
        """How a browser is asked for a password (RFC 7235); empty: it is not."""
        ...

    @property
    def entrance(self) -> str:
        """The page that lets people in; empty: there is none."""
        ...

    def user(self, headers: Mapping[str, str], peer: str) -> User:
        """Who asks.

        Raises:
            LoginRequired, NotAllowed: nobody who may.
        """
        ...


def networks(text: str) -> list[Network]:
    """Addresses and networks, separated by commas.

    Raises:
        SettingsError: one of them is none.
    """
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise SettingsError(f"dashboard.trusted_proxies: {error}", hint="write 10.0.0.7 or 10.0.0.0/24") from error


def is_loopback_name(host: str) -> bool:
    """Whether a name or address means this machine and nobody else can reach it."""
    return host == "localhost" or _is_loopback(host)


def _is_loopback(peer: str) -> bool:
    address = _address(peer)
    return address is not None and address.is_loopback


def _within(peer: str, trusted: Sequence[Network]) -> bool:
    address = _address(peer)
    return address is not None and any(address in network for network in trusted)


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return None
    # A socket for both kinds names an IPv4 peer so: `::ffff:10.0.0.7`.
    return getattr(address, "ipv4_mapped", None) or address


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic" or len(value) > 1000:
        raise LoginRequired("log in with name and password")
    try:
        name, found, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise LoginRequired("log in with name and password") from error
    if not found:
        raise LoginRequired("log in with name and password")
    return name, password
