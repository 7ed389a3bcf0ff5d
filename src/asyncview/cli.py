"""The ``asyncview`` command: reads its arguments, runs, and reports in sentences."""

import argparse
import logging
import os
import secrets
import signal
import sys
from argparse import ArgumentParser
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from waitress import create_server
from zc.lockfile import LockError

import asyncview

ANY_ADDRESS = ("127.0.0.1", "::1", "0.0.0.0", "::")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except _CannotStart as error:
        print(f"asyncview {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # A second Ctrl-C: somebody does not want to wait for the first.
        return 130


class _CannotStart(Exception):
    """The command cannot do its work; the message says why."""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="asyncview", description="Pyramid views that run in the background."
    )
    parser.add_argument(
        "--version", action="version", version=f"asyncview {version('asyncview')}"
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="serve the demo application",
        description="Serve the demo application until Ctrl-C.  Whoever reaches its "
        "address may list the files of this machine.",
    )
    demo.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (%(default)s)"
    )
    demo.add_argument(
        "--port", type=_port, default=6543, help="0 takes a free one (%(default)s)"
    )
    demo.add_argument(
        "--var", default="./var", help="folder of the database (%(default)s)"
    )
    demo.set_defaults(run=_demo)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 65535")
    return int(text)


def _demo(arguments: Namespace) -> int:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # It warns of each request that waits a moment for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # It warns, harmlessly, of an index that a killed process could not save.
    logging.getLogger("ZODB.FileStorage").setLevel(logging.ERROR)
    # Without a handler SIGTERM would end us in mid-write, and a shell that starts us
    # in the background of a script has SIGINT ignored.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app = _open_demo(os.path.abspath(arguments.var))
    try:
        server = _listen(app, arguments.host, arguments.port)
        _greet(server, arguments)
        # Returns, too, when a signal raised KeyboardInterrupt or SystemExit.
        server.run()
        server.close()
        print("Ending; what runs now gets a few seconds to end.", flush=True)
    except (KeyboardInterrupt, SystemExit):
        # The signal came before waitress could catch it.
        pass
    finally:
        asyncview.close(app.registry)
    return 0


def _secret(path: str) -> str:
    """The sessions' secret, made at the first start and for nobody else to read."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        secret = secrets.token_hex(32)
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(secret)
        return secret


def _exit(signum: int, frame: Any) -> None:
    raise SystemExit(0)


def _open_demo(var: str) -> Any:
    # Whoever runs another command does not need the demo.
    from asyncview.demo import main

    query = urlencode({"blobstorage_dir": os.path.join(var, "blobs")})
    uri = f"file://{os.path.join(var, 'Data.fs')}?{query}"
    try:
        os.makedirs(var, exist_ok=True)
        secret = _secret(os.path.join(var, "secret"))
        return main(**{"zodbconn.uri": uri, "demo.secret": secret})
    except LockError as error:
        raise _CannotStart(
            f"the database in {var} is in use by another process; end that one or "
            "name another folder with --var."
        ) from error
    except OSError as error:
        raise _CannotStart(f"the folder {var} cannot be used: {error}.") from error


def _listen(app: Any, host: str, port: int) -> Any:
    try:
        return create_server(app, host=host, port=port)
    except (OSError, ValueError) as error:
        raise _CannotStart(
            f"cannot listen on {host} port {port} ({error}); choose another with "
            "--host and --port."
        ) from error


def _greet(server: Any, arguments: Namespace) -> None:
    # waitress has one socket, or a list of them for a name with several addresses.
    listening = getattr(server, "effective_listen", None)
    port = listening[0][1] if listening else server.effective_port
    host = "localhost" if arguments.host in ANY_ADDRESS else arguments.host
    if ":" in host:
        host = f"[{host}]"
    print(f"The demo is at http://{host}:{port}", flush=True)
    print(f"Its data is in {os.path.abspath(arguments.var)}", flush=True)
    print("Ctrl-C ends it.", flush=True)
