"""A CSV file of customers to try the import with, as big as is asked for."""

import itertools
import random
from datetime import date
from datetime import timedelta

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response
from pyramid.view import view_config

from asyncview.demo.importing import COLUMNS
from asyncview.demo.models import Demo

MOST_ROWS = 50_000_000
#: One row in so many is wrong.
WRONG = 100
#: Rows that are sent at once.
BLOCK = 2_000

FIRST = ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Hedy", "Jürgen", "Zoë"]
LAST = ["Dijkstra", "Hopper", "Lamarr", "Liskov", "Lovelace", "O'Neil", "Turing"]


@view_config(name="sample.csv", context=Demo)
def sample_csv(context, request):
    """Stream as many rows as the form asks for."""
    text = request.GET.get("rows", "")
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) <= MOST_ROWS):
        raise HTTPBadRequest(f"Please give a number of rows from 1 to {MOST_ROWS}.")
    return Response(
        app_iter=blocks(int(text)),
        content_type="text/csv",
        charset="utf-8",
        content_disposition=f'attachment; filename="customers-{text}.csv"',
    )


def blocks(number):
    """The file, some rows at a time; the same for the same number."""
    lines = itertools.chain([",".join(COLUMNS)], make_lines(number))
    while block := list(itertools.islice(lines, BLOCK)):
        yield ("\r\n".join(block) + "\r\n").encode("utf-8")


def make_lines(number):
    chance = random.Random(number)
    for row in range(1, number + 1):
        first, last = chance.choice(FIRST), chance.choice(LAST)
        born = date(1930, 1, 1) + timedelta(days=chance.randrange(30_000))
        fields = [str(row), f"{first} {last}", f"customer{row}@example.org", str(born)]
        if row % WRONG == 0:
            spoil(fields, chance)
        yield ",".join(fields)


def spoil(fields, chance):
    """Have one of the things wrong that an import has to find."""
    column = chance.randrange(5)
    if column == 4:
        fields.append("one too many")
    else:
        fields[column] = ["1", "", "nobody", "31.2.1980"][column]
