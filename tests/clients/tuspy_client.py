"""Uploads a file with tuspy, as its argument says; prints the uid."""

import json
import sys

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.storage.filestorage import FileStorage

options = json.loads(sys.argv[1])
client = TusClient(options["endpoint"], headers=options["headers"])


def upload():
    uploader = client.uploader(
        options["path"],
        chunk_size=options["chunkSize"],
        metadata={"filename": options["name"]} if options["name"] else None,
        retries=1_000,
        retry_delay=0.05,
        upload_checksum=True,
        store_url=True,
        url_storage=FileStorage(options["memory"]),
    )
    uploader.upload()
    return uploader.url


# It tries chunks again, but not the request that makes an upload.
for _ in range(1_000):
    try:
        url = upload()
        break
    except TusCommunicationError as error:
        if error.status_code not in (None, 503):
            raise
sys.stdout.write(url.rpartition("/")[2])
