"""A view inside its job: how ``__run__`` is entered, and what it may lose there."""

import logging
from typing import Any

from pyramid.response import Response

from asyncview.pyramid import pages
from asyncview.pyramid.identity import context_identity
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.start import JOB
from asyncview.pyramid.start import VIEW
from asyncview.pyramid.terms import said_anew
from asyncview.ticket import Ticket


def run_replayed(view: Any, ticket: Ticket) -> Any:
    """The replay has come to where the request started the job."""
    request = view.request
    if owner_of(request) != ticket.owner:
        ticket.refuse("the request is no longer that of the job's owner")
        return Response(status=204)
    if context_identity(view.context) != ticket.context:
        ticket.refuse("the job's context was replaced by another object")
        return Response(status=204)
    ticket.entered = True
    view.process_id = ticket.id
    view.progress = ticket.session
    if ticket.ending is not None:
        view.on_end(ticket.ending)
        return Response(status=204)
    request.environ[VIEW] = view
    try:
        if pages.takes_process_id(type(view).__run__):
            result = view.__run__(process_id=ticket.id)
        else:
            result = view.__run__()
    except BaseException as error:
        ticket.occasion = error.__context__
        # Its own error is the news, not what a property makes of the half done work.
        try:
            ticket.changed = said_anew(view, ticket.terms)
        except Exception:
            logging.getLogger("asyncview.job").exception("%s", ticket)
        raise
    finally:
        ticket.left = True
    ticket.changed = said_anew(view, ticket.terms)
    return result


def ticket_of(view: Any) -> Ticket | None:
    """The claim under which a view's ``__run__`` runs; None where it runs without."""
    if view.process_id is None:
        return None
    ticket: Ticket | None = view.request.environ.get(JOB)
    return ticket


def at_stake(transaction: Any) -> str | None:
    """What goes with ``transaction`` if it is aborted, in words; None for nothing."""
    if transaction._resources:
        return "what was written"
    if transaction.isDoomed():
        return "that the transaction is doomed"
    # None is ours: those come when the work is over.  Of `run_in_thread`, which the
    # application has called, an abort would fail the session.
    hooks = (
        *transaction.getBeforeCommitHooks(),
        *transaction.getAfterCommitHooks(),
        *transaction.getBeforeAbortHooks(),
        *transaction.getAfterAbortHooks(),
    )
    return f"the transaction's hook {hooks[0][0]!r}" if hooks else None
