"""Forks servers that have all they need imported already, and nothing opened.

Reads lines of JSON, each the orders for one server, and answers with its pid.  Ends
with its standard input, and takes its servers with it.
"""

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import waitress

from chaos import mutants
from chaos import points
from chaos.app import Trace
from chaos.app import make_app


def serve(orders):
    """Be a server: what the orders say, on a free port, until killed."""
    log = os.open(orders["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(
        level=logging.INFO, format="%(process)d %(name)s %(levelname)s %(message)s"
    )
    logging.getLogger("ZEO").setLevel(logging.ERROR)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if orders.get("mutant"):
        mutants.apply(orders["mutant"])
    if orders.get("point"):
        trace = Trace(orders["points"])
        points.arm(
            orders["point"], orders["count"], lambda point: trace.write(point=point)
        )
    if orders.get("lose_answers"):
        points.lose_answers(orders["lose_answers"])
    app = make_app(orders["settings"])
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8)
    # In one piece: whoever sees it, sees all of it.
    port = Path(orders["port"])
    new = port.with_name(f"{port.name}.new")
    new.write_text(str(server.effective_port))
    new.rename(port)
    server.run()


def main():
    children = set()

    def reap(number, frame):
        # At once: who asks whether a server is alive takes a zombie for one.  And none
        # is kept: its pid may be anybody's by the time when all are killed.
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                children.discard(pid)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        orders = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            # Not the way back into the loop, whatever happens.
            try:
                os.close(0)
                os.open(os.devnull, os.O_RDONLY)
                serve(orders)
            except BaseException:
                logging.exception("the server could not be started")
            finally:
                os._exit(1)
        children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in list(children):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
