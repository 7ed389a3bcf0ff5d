"""The messages of a job, which are flashed wherever the page goes at the end."""

from playwright.sync_api import expect
from pyramid.response import Response

from asyncview import BaseAsyncView


def members(request):
    """Where the job sends its user: an ordinary page with the flashed messages."""
    told = "".join(f"<p>{text}</p>" for text in request.session.pop_flash())
    return Response(
        f"<!DOCTYPE html><html lang='en'><title>Members</title><h1>Members</h1>{told}"
    )


class Import(BaseAsyncView):
    label = "Import of members"
    success_msg = "All members were imported"
    success_url = "/members"

    def __run__(self):
        return self.request.registry.work.run(self)


def test_message_is_flashed_once_where_the_page_goes_to_another(serve, tab):
    def configure(config):
        config.add_async_view(Import, "import")
        config.add_view(members, name="members")

    place = serve(configure)
    tab.goto(f"{place.url}/import")
    tab.get_by_role("button", name="Start").click()
    assert place.work.entered.wait(30)
    place.work.finish()
    expect(tab.get_by_role("heading")).to_have_text("Members")
    assert tab.url == f"{place.url}/members"
    expect(tab.get_by_text("All members were imported")).to_be_visible()
    tab.reload()
    expect(tab.get_by_text("All members were imported")).to_have_count(0)
