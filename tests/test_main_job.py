from asyncview import BaseAsyncView


class Hello(BaseAsyncView):
    def __run__(self, process_id=None):
        self.progress.update(1, 2)
        return "hello " + str(process_id == self.process_id)


def test_hello(make_site):
    site = make_site(lambda config: config.add_async_view(Hello, "hello"))
    doc = site.run("/hello")
    assert doc["status"] == "completed", doc
    response = site.result("/hello", doc["process_id"])
    assert response.text == "hello True"
