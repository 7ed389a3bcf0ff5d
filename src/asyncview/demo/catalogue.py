"""Hash and index a folder: real work, in one transaction, with live progress."""

import csv
import hashlib
import io
import os
import sysconfig

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.view import view_config

from asyncview import BaseAsyncView
from asyncview.demo.models import Catalogue
from asyncview.demo.models import Demo
from asyncview.demo.models import reading


@view_config(name="catalogue", context=Demo, renderer="templates/catalogue.pt")
class CatalogueView(BaseAsyncView):
    """Catalogue the files under a folder of this machine."""

    initial_page = "templates/catalogue_form.pt"
    error_msg = "The catalogue could not be made.  The one of before is unchanged."
    # A double click makes one catalogue; a second visitor is asked to wait.
    exclusive = "catalogue"
    error = None

    @property
    def folder(self):
        return self.request.POST.get("folder", sysconfig.get_path("stdlib")).strip()

    @property
    def label(self):
        """With the folder: a second start leads to the catalogue being made."""
        return f"Catalogue of {self.folder}"

    def run_process(self):
        """Start the job if the form is right; else the form shows ``self.error``."""
        if not super().run_process():
            return False
        self.error = problem_with(self.folder)
        if self.error:
            self.request.response.status = 422
        return not self.error

    def __run__(self):
        catalogue = Catalogue(self.folder)
        paths = self.progress.track(
            find_files(self.folder, catalogue), message="Looking for files"
        )
        for path in self.progress.track(list(paths)):
            name = readable(os.path.relpath(path, self.folder))
            self.progress.update(message=f"Hashing {name}")
            try:
                size, digest = measure(path, self.progress)
            except OSError:
                catalogue.skipped += 1
            else:
                catalogue.add(name, size, digest)
        self.progress.update(message="Writing the report")
        self.context.catalogue = catalogue
        self.success_msg = f"{catalogue.count} files catalogued."
        return {"catalogue": catalogue, "human_size": human_size}


@view_config(name="catalogue.csv", context=Demo)
def catalogue_csv(context, request):
    """Stream the catalogue that is in the database."""
    if context.catalogue is None:
        raise HTTPNotFound("There is no catalogue yet.")
    return Response(
        app_iter=csv_lines(context._p_jar.db()),
        content_type="text/csv",
        charset="utf-8",
        content_disposition='attachment; filename="catalogue.csv"',
    )


def csv_lines(db):
    with reading(db) as demo:
        catalogue = demo.catalogue
        yield csv_line("path", "size", "sha256")
        for name, (size, digest) in catalogue.files.items():
            yield csv_line(os.path.join(catalogue.folder, name), size, digest)


def csv_line(*values):
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().encode("utf-8")


def problem_with(folder):
    """Say why a folder cannot be catalogued; None if it can."""
    if not os.path.isabs(folder):
        return "Please give the whole path of a folder, from its root."
    if not os.path.isdir(folder):
        return "There is no such folder on this machine."
    if not os.access(folder, os.R_OK | os.X_OK):
        return "This folder may not be read."
    return None


def find_files(folder, catalogue):
    """Yield the path of each ordinary file; count folders that cannot be read."""

    def skip(error):
        catalogue.skipped += 1

    for parent, folders, names in os.walk(folder, onerror=skip):
        # Other file systems stay out: /proc and /sys have no end.
        folders[:] = [
            name for name in folders if not os.path.ismount(os.path.join(parent, name))
        ]
        for name in names:
            path = os.path.join(parent, name)
            # A link would count a file twice, and a pipe never ends.
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def measure(path, progress):
    """Return a file's size and sha256; memory stays flat.

    OSError for what is longer than it says: files of /proc may have no end.
    """
    size, digest = 0, hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            # A cancelled job ends here, also in a file of many gigabytes.
            progress.update()
            size += len(block)
            if size > os.fstat(file.fileno()).st_size:
                raise OSError(f"{path} has no size")
            digest.update(block)
    return size, digest.hexdigest()


def readable(path):
    """Return a path as text that can be shown: names on a disk are any bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def human_size(size):
    """Return a number of bytes as people write it.

    >>> human_size(512), human_size(1536), human_size(5 * 2**40)
    ('512 B', '1.5 KiB', '5120.0 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
