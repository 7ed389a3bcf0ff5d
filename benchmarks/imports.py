"""Import of the package, against Pyramid and the ZODB alone; each in a new process.

Without garbage collection: a process has its first full one somewhere after Pyramid and
the ZODB, and who adds the next thing, however small, would be charged for all of it.

python benchmarks/imports.py
"""

import os
import subprocess
import sys
import time

from harness import compare

PEERS = "import pyramid.config, ZODB, ZODB.FileStorage, pyramid_tm, pyramid_zodbconn"


# Compiled, as what is installed is.
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONDONTWRITEBYTECODE"
}


def importing(code):
    code = f"import gc; gc.disable(); {code}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, env=ENVIRON)

    def variant():
        began = time.perf_counter()
        subprocess.run(command, check=True, env=ENVIRON)
        return time.perf_counter() - began

    return variant


if __name__ == "__main__":
    compare(
        "Import",
        "pyramid and ZODB",
        {
            "nothing": importing("pass"),
            "pyramid and ZODB": importing("import pyramid.config, ZODB.FileStorage"),
            "with pyramid_tm and pyramid_zodbconn": importing(PEERS),
            "asyncview": importing(f"{PEERS}; import asyncview"),
        },
        rounds=11,
        goals={"asyncview": 1.15},
    )
