"""Import a CSV file of any size: an upload, a report, and the rows that were wrong."""

import csv
import io
import re
from datetime import date

from pyramid.response import Response
from pyramid.view import view_config

from asyncview import BaseAsyncView
from asyncview.demo.catalogue import csv_line
from asyncview.demo.models import Demo
from asyncview.demo.models import reading

COLUMNS = ["number", "name", "email", "born"]
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
#: Rows after which what was made goes to a temporary file: memory stays flat.
BATCH = 10_000


@view_config(name="import", context=Demo, renderer="templates/importing.pt")
class Importing(BaseAsyncView):
    """Replace the customers by those of a CSV file, in one transaction."""

    label = "Import of customers"
    initial_page = "templates/importing_form.pt"
    error_msg = "The import failed.  The customers of before are unchanged."
    exclusive = "import"
    # This field of the form has the id of an upload; without JavaScript it has the
    # file itself.  `self.upload` gives the same for both.
    uploads = ("file",)
    error = None

    def run_process(self):
        """Start the job if the file is right; else the form shows ``self.error``."""
        if not super().run_process():
            return False
        self.error = problem_with(self.upload("file"))
        if self.error:
            self.request.response.status = 422
        return not self.error

    def __run__(self):
        upload = self.upload("file")
        customers = self.context.customers
        customers.replace(upload.file_name)
        with text_of(upload) as lines:
            counted = self.progress.track(lines, message="Counting lines")
            total = sum(1 for line in counted)
        self.progress.update(0, total, "Importing")
        with text_of(upload) as lines:
            rows = csv.reader(lines)
            next(rows)
            for number, row in enumerate(filter(None, rows), 1):
                problem = take(row, customers)
                if problem:
                    customers.reject(rows.line_num, problem, row)
                # A row may have several lines.
                self.progress.update(rows.line_num)
                if number % BATCH == 0:
                    self.request.tm.savepoint()
        self.success_msg = f"{customers.count} customers imported."
        return {"customers": customers}


@view_config(name="rejected.csv", context=Demo)
def rejected_csv(context, request):
    """Stream the rows that were wrong, each with its line and what is wrong."""
    return Response(
        app_iter=rejected_lines(context._p_jar.db()),
        content_type="text/csv",
        charset="utf-8",
        content_disposition='attachment; filename="rejected.csv"',
    )


def rejected_lines(db):
    with reading(db) as demo:
        yield csv_line("line", "problem", *COLUMNS)
        for line, (problem, row) in demo.customers.rejected.items():
            yield csv_line(line, problem, *row)


def text_of(upload):
    """An upload as lines of text; what is no UTF-8 is replaced."""
    return io.TextIOWrapper(upload.open(), "utf-8-sig", errors="replace", newline="")


def problem_with(upload):
    """Say why a file cannot be imported; None if it can."""
    if upload is None:
        return "Please choose a file."
    with text_of(upload) as lines:
        # What is no CSV may have no line that ends.
        head = lines.readline(1000).rstrip("\r\n")
    if head.replace('"', "") != ",".join(COLUMNS):
        return f"The first line of the file has to be {','.join(COLUMNS)}"
    return None


def take(row, customers):
    """Add a row to the customers; say what is wrong with it, None if nothing is."""
    if len(row) != len(COLUMNS):
        return f"not {len(COLUMNS)} columns"
    number, name, email, born = (field.strip() for field in row)
    if not (number.isascii() and number.isdecimal() and len(number) <= 18):
        return "no number"
    if int(number) in customers.by_number:
        return "number used twice"
    if not name:
        return "no name"
    if not EMAIL.fullmatch(email):
        return "no e-mail address"
    try:
        date.fromisoformat(born)
    except ValueError:
        return "no date of birth"
    customers.add(int(number), name, email, born)
    return None
