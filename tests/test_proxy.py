"""Behind a proxy that ends TLS, as docs/deployment.rst says."""

import json
import re
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import waitress
from conftest import PATIENCE
from ending import end
from pyramid.session import SignedCookieSessionFactory

from asyncview import BaseAsyncView

DOCS = Path(__file__).parent.parent / "docs" / "deployment.rst"

#: What nginx adds, as it is told to.
PROXIED = {
    "Host": "site.example",
    "X-Forwarded-Host": "site.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "192.0.2.1",
}


class Report(BaseAsyncView):
    def __run__(self):
        request = self.request
        return f"{request.route_url('page')} for {request.remote_addr}"


def configure(config):
    config.set_session_factory(SignedCookieSessionFactory("secret", secure=True))
    config.set_default_csrf_options(require_csrf=True)
    config.add_route("page", "/page")
    config.add_async_view(Report, "report")


@pytest.fixture
def serve(make_site):
    """Serves a site by waitress; gives what asks it as the proxy would."""
    served = []

    def serve(**options):
        site = make_site(configure)
        server = waitress.create_server(site.wsgi, host="127.0.0.1", port=0, **options)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        served.append((server, thread))

        def ask(method, url, body=None, **headers):
            connection = HTTPConnection("127.0.0.1", server.effective_port, PATIENCE)
            headers = {name.replace("_", "-"): text for name, text in headers.items()}
            if body is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            try:
                connection.request(method, url, body, PROXIED | headers)
                response = connection.getresponse()
                return response.status, response.headers, response.read().decode()
            finally:
                connection.close()

        return site, ask

    yield serve
    for server, thread in served:
        end(server, thread)


def documented():
    """The options of the example for waitress."""
    example = DOCS.read_text().split("believes no proxy")[1]
    call = re.search(r"    serve\((.*?)\n    \)\n", example, re.DOTALL)[1]
    return eval(f"dict({call.replace('app,', '', 1)})")


@pytest.mark.parametrize("options", [documented(), {"url_scheme": "https"}])
def test_links_redirects_and_checks_are_those_of_the_browsers_address(serve, options):
    site, ask = serve(**options)
    _, headers, page = ask("GET", "/report")
    cookie = headers["Set-Cookie"]
    assert "secure" in cookie.lower()
    token = re.search(r'name="csrf_token" value="(\w+)"', page)[1]
    mine = {"Cookie": cookie.partition(";")[0]}
    body = f"csrf_token={token}"
    # The origin is looked at, as it is with TLS.
    assert ask("POST", "/report", body, **mine)[0] == 400
    foreign = mine | {"Origin": "https://elsewhere.example"}
    assert ask("POST", "/report", body, **foreign)[0] == 400
    mine["Origin"] = "https://site.example"
    status, headers, _ = ask("POST", "/report", body, **mine)
    assert status == 303
    mine["Cookie"] = headers["Set-Cookie"].partition(";")[0]
    target = urlsplit(headers["Location"])
    assert (target.scheme, target.netloc) == ("https", "site.example")
    process_id = target.query.partition("=")[2]
    site.wait(process_id)
    address = f"/report/completed?process_id={process_id}&output_json=1"
    document = json.loads(ask("GET", address, **mine)[2])
    assert document["links"]["result"].startswith("/report/result?")
    text = ask("GET", document["next_url"], **mine)[2]
    assert text.startswith("https://site.example/page for ")


def test_a_server_that_is_not_told_sends_the_browser_to_plain_http(serve):
    """When this fails, the text of the docs is to be mended."""
    _, ask = serve()
    _, headers, page = ask("GET", "/report")
    token = re.search(r'name="csrf_token" value="(\w+)"', page)[1]
    mine = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    status, headers, _ = ask("POST", "/report", f"csrf_token={token}", **mine)
    assert (status, urlsplit(headers["Location"]).scheme) == (303, "http")
