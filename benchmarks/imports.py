"""Import of the package, against Pyramid and the ZODB alone; each in a new process.

python benchmarks/imports.py
"""

import subprocess
import sys
import time

from harness import compare

PEERS = "import pyramid.config, ZODB, ZODB.FileStorage, pyramid_tm, pyramid_zodbconn"


def importing(code):
    def variant():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
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
