"""What the examples keep in the ZODB, and nothing of the web."""

import heapq
import itertools
import os.path
from contextlib import contextmanager

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from BTrees.OOBTree import OOTreeSet
from persistent import Persistent
from pyramid.scripting import prepare as prepare_request
from pyramid_zodbconn import get_connection
from transaction import TransactionManager


class Demo(Persistent):
    """The root, and the context of every view."""

    __parent__ = None
    __name__ = ""

    catalogue = None

    def __init__(self):
        self.failures = Counter()
        self.races = Counter()
        self.customers = Customers()


class Counter(Persistent):
    """A number of its own, so that two examples do not write one object."""

    value = 0
    rivals = ()


class Catalogue(Persistent):
    """The files of one folder, indexed."""

    count = 0
    total_size = 0
    skipped = 0

    def __init__(self, folder):
        self.folder = folder
        self.files = OOBTree()  # path -> (size, sha256)
        self.extensions = OOBTree()  # extension -> set of paths
        self.digests = OOTreeSet()  # (sha256, path): copies lie side by side

    def add(self, path, size, digest):
        self.files[path] = (size, digest)
        extension = os.path.splitext(path)[1].lower()
        self.extensions.setdefault(extension, OOTreeSet()).add(path)
        self.digests.add((digest, path))
        self.count += 1
        self.total_size += size

    def by_extension(self):
        """Return (extension, number of files, bytes), the most bytes first."""
        rows = [
            (extension, len(paths), sum(self.files[path][0] for path in paths))
            for extension, paths in self.extensions.items()
        ]
        return sorted(rows, key=lambda row: row[2], reverse=True)

    def biggest(self, number):
        """Return (path, bytes) of the biggest files."""
        rows = ((path, size) for path, (size, _) in self.files.items())
        return heapq.nlargest(number, rows, key=lambda row: row[1])

    def duplicates(self):
        """Return (bytes that copies waste, paths), the most wasteful first."""
        rows = []
        for _, pairs in itertools.groupby(self.digests, key=lambda pair: pair[0]):
            paths = [path for _, path in pairs]
            wasted = (len(paths) - 1) * self.files[paths[0]][0]
            if wasted:
                rows.append((wasted, paths))
        return sorted(rows, reverse=True)


class Customers(Persistent):
    """The customers of one file, and the rows of it that were wrong."""

    def __init__(self):
        self.replace("")

    def replace(self, file_name):
        """Begin anew, with another file."""
        self.file_name = file_name
        self.by_number = LOBTree()  # number -> (name, email, born)
        self.rejected = LOBTree()  # line -> (problem, fields)
        self.problems = OOBTree()  # problem -> how often
        self.count = 0

    def add(self, number, name, email, born):
        self.by_number[number] = (name, email, born)
        self.count += 1

    def reject(self, line, problem, fields):
        self.rejected[line] = (problem, tuple(fields))
        self.problems[problem] = self.problems.get(problem, 0) + 1

    def first_rejected(self, number):
        """Return (line, problem, fields) of the first rows that were wrong."""
        rows = itertools.islice(self.rejected.items(), number)
        return [(line, problem, fields) for line, (problem, fields) in rows]

    @property
    def rejected_count(self):
        return sum(self.problems.values())


def root_factory(request):
    root = get_connection(request).root()
    if "demo" not in root:
        root["demo"] = Demo()
    return root["demo"]


@contextmanager
def reading(db):
    """The root, for a stream: the connection of its request is closed before it."""
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        tm.begin()
        yield connection.root()["demo"]
    finally:
        tm.abort()
        connection.close()


def prepare(registry):
    """Make the root at start-up, so that no request for a page has to write."""
    with prepare_request(registry=registry) as env:
        env["request"].tm.commit()
