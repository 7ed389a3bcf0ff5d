"""Pyramid views whose work runs in the background, with the outcome in the ZODB."""

from asyncview.console import ConsoleProgress
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import InvalidTransition
from asyncview.exceptions import JobCancelled
from asyncview.exceptions import NoSuchProcessError
from asyncview.exceptions import ProcessCancelledError
from asyncview.exceptions import QueueFull
from asyncview.exceptions import ThreadDiedBeforeCompletionError
from asyncview.exceptions import UploadIncomplete
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.loop import progress_loop
from asyncview.pyramid.config import close
from asyncview.pyramid.config import includeme
from asyncview.pyramid.view import BaseAsyncView
from asyncview.session import ProgressSession
from asyncview.standalone import ScriptKeeper

# A session can be made of nothing but a connection; what keeps it lies above it.
ProgressSession.keeper_of = ScriptKeeper

__all__ = [
    "AsyncViewError",
    "BaseAsyncView",
    "ConsoleProgress",
    "InvalidTransition",
    "JobCancelled",
    "NoSuchProcessError",
    "ProcessCancelledError",
    "ProgressSession",
    "QueueFull",
    "ThreadDiedBeforeCompletionError",
    "UploadIncomplete",
    "UploadNotFound",
    "UploadRefused",
    "close",
    "includeme",
    "progress_loop",
]
