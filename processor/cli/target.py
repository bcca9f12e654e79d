"""What a command works on: the app named `module:attribute`, or a bare namespace, and the broker behind it."""

from __future__ import annotations

import functools
import importlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from processor.errors import DefinitionError, ProcessorError

if TYPE_CHECKING:
    from processor.app import App
    from processor.broker.base import Broker
    from processor.wire.settings import Settings

Command = Callable[..., Any]


def app_option(command: Command) -> Command:
    """`--app MODULE:APP`, also from PROCESSOR_APP; pass the value to `load_app`."""
    return click.option(
        "--app", "app_name", envvar="PROCESSOR_APP", metavar="MODULE:APP", help="The app, for example shop.jobs:app."
    )(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the options said."""

    app_name: str | None
    namespace: str | None
    bootstrap: str | None

    @property
    def has_code(self) -> bool:
        """Whether the app's own declarations are known, not only its namespace."""
        return self.namespace is None

    def app(self) -> App:
        """The app: imported, or an empty one of the namespace.

        Raises:
            DefinitionError: neither was named, or there is no such app.
            SettingsError: a setting is wrong.
        """
        if self.namespace is not None:
            from processor.app import App
            from processor.wire.settings_sources import load_settings

            return App(self.namespace, settings=load_settings({"kafka.bootstrap": self.bootstrap}))
        if not self.app_name:
            raise DefinitionError(
                "which app?",
                hint="give --app MODULE:APP or set PROCESSOR_APP, e.g. shop.jobs:app; or --namespace shop",
            )
        app = load_app(self.app_name)
        if self.bootstrap is not None:
            app.bind(_kafka(app.settings(), self.bootstrap))
        return app


def target_options(command: Command) -> Command:
    """`--app`, `--namespace` and `--bootstrap`; the command gets a `Target` as `target`."""

    @app_option
    @click.option("--namespace", metavar="NAME", help="Go by this namespace alone, without the app's code.")
    @click.option("--bootstrap", metavar="HOST:PORT", help="Kafka brokers to ask first.")
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        target = Target(
            app_name=kwargs.pop("app_name"), namespace=kwargs.pop("namespace"), bootstrap=kwargs.pop("bootstrap")
        )
        source = click.get_current_context().get_parameter_source("app_name")
        # A namespace on the command line is nearer than an app in the environment; two flags are a contradiction.
        if target.namespace and target.app_name and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("give --app or --namespace, not both: an app has its namespace")
        return command(*args, target=target, **kwargs)

    return run


def load_app(name: str | None) -> App:
    """Import an app, as workers and their child processes do.

    Raises:
        DefinitionError: no name was given, there is no such module, attribute or app, or the module raises an error:
            then its own frames are shown.
    """
    from processor.app import App
    from processor.executors.loading import load_application

    if not name:
        raise DefinitionError("which app?", hint="give --app MODULE:APP or set PROCESSOR_APP, e.g. shop.jobs:app")
    try:
        found = load_application(name)
    except ProcessorError:
        raise
    except Exception as error:
        raise _broken(name, error) from error
    if not isinstance(found, App):
        raise DefinitionError(f"{name} is a {type(found).__name__}, not an App", hint='app = App("shop")')
    return found


def _broken(name: str, error: Exception) -> DefinitionError:
    """An error of the user's module, after the part of its traceback that is the user's."""
    from processor.texts import message_of, place_of, traceback_of

    frame = error.__traceback__
    while frame is not None and _is_ours(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    shown = traceback.format_exception(type(error), error, frame, chain=error.__cause__ is not None)
    click.echo("".join(shown), nl=False, err=True)
    where = "" if frame is None else f" at {place_of(traceback_of(error))}"
    return DefinitionError(
        f"{name.rpartition(':')[0] or name} does not load: {type(error).__name__}: {message_of(error)}{where}"
    )


def _is_ours(file: str) -> bool:
    ours = str(Path(__file__).parents[1]) + os.sep
    return file.startswith(("<frozen importlib", ours)) or file == importlib.__file__


def _kafka(settings: Settings, bootstrap: str) -> Broker:
    from processor.broker.kafka import KafkaBroker, from_settings

    return KafkaBroker(from_settings(settings, bootstrap))
