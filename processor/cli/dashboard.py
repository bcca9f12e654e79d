"""`processor dashboard`: jobs, failures and dead letters in the browser, and their API."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import click

from processor.cli.output import Output, output_options
from processor.cli.projection import database_option, needs_dashboard, opened, projecting
from processor.cli.target import Target, target_options
from processor.errors import ExtraMissing, SettingsError

if TYPE_CHECKING:
    from processor.app import App
    from processor.ops.login import Login
    from processor.wire.settings import DashboardSettings


@click.command()
@target_options
@database_option
@click.option("--host", metavar="ADDRESS", help="Listen here.", show_default="dashboard.host")
@click.option("--port", type=click.IntRange(0, 65_535), help="Listen here; 0: any.", show_default="dashboard.port")
@click.option("--no-login", is_flag=True, help="Let everybody on this machine in, and nobody else.")
@click.option("--no-projection", is_flag=True, help="Another process keeps the projection up to date.")
@click.option(
    "--new-user", metavar="NAME:ROLE", help="Print a line for the users' file, and end; @QUEUE,... limits it."
)
@output_options
@needs_dashboard
def dashboard(out: Output, /, target: Target, new_user: str | None, **options: object) -> None:
    """Show jobs, failures, dead letters and queues in the browser, and act on them.

    It is closed unless you say who may ask: name a file with users (dashboard.users_file), a proxy or an OpenID Connect
    provider that logs people in (dashboard.login), or let in everybody on this machine with --no-login.
    """
    if new_user is not None:
        _print_user(out, new_user)
        return
    app = target.app()
    settings = app.settings().dashboard
    host = str(options["host"] or settings.host)
    port = options["port"] if isinstance(options["port"], int) else settings.port
    login = login_of(settings, "none" if options["no_login"] else settings.login, host, port)
    database = options["database"]
    with opened(app, database if isinstance(database, str) else None) as store:
        _serve(out, app, store, login, (host, port), projects=not options["no_projection"])


def login_of(settings: DashboardSettings, kind: str, host: str, port: int) -> Login:
    """Who may ask. `host` and `port` are listened on.

    Raises:
        SettingsError: nobody could, or everybody in the network could.
    """
    from processor.ops.login import BasicLogin, NoLogin, ProxyLogin, is_loopback_name, networks, read_users

    if kind == "none":
        if not is_loopback_name(host):
            raise SettingsError(
                f"without login only this machine may ask, and {host} can be reached by others",
                hint="listen on 127.0.0.1, or name a users' file: dashboard.users_file",
            )
        return NoLogin()
    if kind == "oidc":
        return _oidc(settings, host, port)
    if not settings.users_file:
        raise SettingsError(
            "nobody may use the dashboard yet",
            hint="processor dashboard --new-user NAME:operator >> users, and set dashboard.users_file; "
            "or --no-login for everybody on this machine",
        )
    users = read_users(settings.users_file)
    if kind == "basic":
        return BasicLogin(users)
    trusted = networks(settings.trusted_proxies)
    if not trusted:
        raise SettingsError("which proxy is trusted?", hint="set dashboard.trusted_proxies, for example 10.0.0.7")
    return ProxyLogin(users, settings.proxy_header, trusted)


def _oidc(settings: DashboardSettings, host: str, port: int) -> Login:
    import os
    import time

    from processor.ops.login import BasicLogin, read_users
    from processor.ops.oidc_login import BACK, OidcLogin, checked_address, roles_of

    try:
        from processor.ops.provider import Provider
    except ModuleNotFoundError as error:
        raise ExtraMissing("oidc", "logging in at a provider") from error
    for name in ("oidc_issuer", "oidc_client_id"):
        if not getattr(settings, name):
            raise SettingsError(f"dashboard.{name} is not set", hint="docs/dashboard.md tells what a provider needs")
    if "openid" not in settings.oidc_scope.split():
        raise SettingsError("dashboard.oidc_scope must contain openid", hint="openid profile email")
    secret = settings.session_secret.get_secret_value().encode()
    if secret and len(secret) < 32:
        raise SettingsError("dashboard.session_secret is too short", hint="openssl rand -hex 32 prints one")
    address = checked_address(settings.address, host, port)
    provider = Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret.get_secret_value(),
        redirect=address + BACK,
        scope=settings.oidc_scope,
        now=time.time,
    )
    return OidcLogin(
        provider,
        roles_of(settings.oidc_roles),
        claim=settings.oidc_claim,
        address=address,
        secret=secret or os.urandom(32),
        session=settings.session,
        now=time.time,
        passwords=BasicLogin(read_users(settings.users_file)) if settings.users_file else None,
    )


def _serve(out: Output, app: App, store: object, login: Login, where: tuple[str, int], *, projects: bool) -> None:
    import socket

    import uvicorn

    from processor.ops.store import Store
    from processor.ops.web.serve import Server, create

    assert isinstance(store, Store)
    host, port = where
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with projecting(app, store) as projector, socket.socket(family) as listening:
        store.prepare(app.broker().admin().cluster().cluster_id, projector.search)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            # Whoever reads the address may ask at once, and waits a moment then.
            listening.listen(2048)
        except OSError as error:
            raise SettingsError(
                f"{host}:{port} cannot be listened on: {error}", hint="choose another --port"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        out.record(
            {"url": f"http://{shown}:{listening.getsockname()[1]}/"}, f"http://{shown}:{listening.getsockname()[1]}/"
        )
        application = create(app, store, login, projector=projector if projects else None)
        # The peer's address is judged, so nobody's headers may change it.
        config = uvicorn.Config(
            application, log_level="warning", proxy_headers=False, server_header=False, timeout_graceful_shutdown=5
        )
        Server(config).run([listening])


def _print_user(out: Output, text: str) -> None:
    try:
        from processor.ops.login import new_user
    except ModuleNotFoundError as error:
        raise ExtraMissing("dashboard", "the dashboard") from error
    name, _, role = text.partition(":")
    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {name} (empty: a proxy logs in): ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    out.record({"line": (line := new_user(name, role, password))}, line)
