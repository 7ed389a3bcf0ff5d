"""Uses the installed package as an application does: pages, files, a job, the demo."""

import re
import subprocess
import sys
import tempfile
import threading
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor
from urllib.request import build_opener

import waitress
from pyramid.config import Configurator

import asyncview

#: Seconds for one answer.
PATIENCE = 30
LOOKS = 600


class Sum(asyncview.BaseAsyncView):
    label = "Sum of numbers"

    def __run__(self):
        numbers = self.progress.track(range(1000), message="Adding")
        return f"The sum is {sum(numbers)}."


class Visitor:
    """A browser without a window."""

    def __init__(self):
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, url, data=None):
        body = None if data is None else urlencode(data).encode()
        with self._opener.open(url, body, timeout=PATIENCE) as answer:
            return answer.url, answer.headers, answer.read().decode("utf-8")

    def page(self, url, data=None):
        """A page, once all files that it names have been fetched."""
        url, headers, text = self.get(url, data)
        assert headers["Content-Type"].startswith("text/html"), headers
        for name in re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg)[^"]*)"', text):
            _, _, content = self.get(urljoin(url, name))
            assert content.strip(), name
            print("has", name)
        return url, text

    def result(self, url, data=None):
        """What comes of the job that a POST starts."""
        here, _, text = self.get(url, data or {})
        pause = threading.Event()
        for _ in range(LOOKS):
            # A quick job has ended before the first look at its page.
            if "/result?" in here:
                return text
            pause.wait(0.1)
            here, _, text = self.get(here)
        raise AssertionError(f"the job does not end: {here}")


def own_application(folder):
    uri = f"file://{folder}/Data.fs?blobstorage_dir={folder}/blobs"
    with Configurator(settings={"zodbconn.uri": uri}) as config:
        config.include("asyncview")
        config.add_async_view(Sum, "sum")
        app = config.make_wsgi_app()
    server = waitress.create_server(app, host="127.0.0.1", port=0)
    threading.Thread(target=server.run, daemon=True).start()
    base = f"http://127.0.0.1:{server.effective_port}/sum"
    visitor = Visitor()
    _, start = visitor.page(base)
    assert "Sum of numbers" in start
    assert visitor.result(base) == "The sum is 499500."
    asyncview.close(app.registry)


def demo(folder):
    command = [Path(sys.executable).parent / "asyncview", "demo", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--var", folder], stdout=subprocess.PIPE, text=True
    )
    try:
        base = process.stdout.readline().split()[-1]
        visitor = Visitor()
        visitor.page(base)
        url, form = visitor.page(f"{base}/fibonacci")
        token = re.search(r'name="csrf_token" value="([^"]+)"', form)[1]
        assert "55" in visitor.result(url, {"number": "10", "csrf_token": token})
    finally:
        process.terminate()
    assert process.wait(PATIENCE) == 0


def main():
    place = Path(asyncview.__file__)
    assert "site-packages" in place.parts, f"{place} is not what was installed"
    for use in (own_application, demo):
        with tempfile.TemporaryDirectory() as folder:
            use(folder)
            print(use.__name__, "works")


main()
