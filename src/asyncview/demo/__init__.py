"""The demo: a small application that is also the tutorial."""

import secrets

from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.session import SignedCookieSessionFactory

from asyncview.demo.models import prepare
from asyncview.demo.models import root_factory

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def main(global_config=None, **settings):
    """Return the WSGI application; ``zodbconn.uri`` names its database."""
    # Kept over restarts, or a visitor would be a stranger to the jobs of before.
    secret = settings.pop("demo.secret", None) or secrets.token_hex(32)
    sessions = SignedCookieSessionFactory(secret, httponly=True, timeout=86400)
    with Configurator(
        settings=settings, root_factory=root_factory, session_factory=sessions
    ) as config:
        config.include("pyramid_chameleon")
        config.include("asyncview")
        config.add_upload_endpoint("/uploads")
        config.set_default_csrf_options(require_csrf=True)
        config.add_subscriber(_set_policy, NewResponse)
        config.scan("asyncview.demo")
        app = config.make_wsgi_app()
    prepare(app.registry)
    return app


def _set_policy(event):
    event.response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
