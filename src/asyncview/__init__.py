"""Pyramid views whose work runs in the background, with the outcome in the ZODB."""

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
from asyncview.pyramid.config import close
from asyncview.pyramid.config import includeme
from asyncview.pyramid.view import BaseAsyncView
from asyncview.session import ProgressSession

__all__ = [
    "AsyncViewError",
    "BaseAsyncView",
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
]
