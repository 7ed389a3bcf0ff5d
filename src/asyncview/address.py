"""Where a browser may be sent."""

import re
from urllib.parse import quote
from urllib.parse import urlsplit

#: What an address may have as it is; everything else no header can carry.
URL_SAFE = "%/:?#[]@!$&'()*+,;=~"


def local_path(value: str, hosts: tuple[str, ...] = ()) -> str:
    """A path of this site, or an address of an allowed host; else ValueError."""
    if re.search(r"[\x00-\x20\x7f\\]", value) or not value.isprintable():
        raise ValueError(f"{value!r} has characters that no address has")
    sent = quote(value, URL_SAFE)
    if value.startswith("/") and not value.startswith("//"):
        return sent
    parts = urlsplit(value)
    if parts.scheme in ("http", "https") and parts.netloc.lower() in hosts:
        return sent
    raise ValueError(
        f"{value!r} is no path of this site, and asyncview.redirect_hosts does not"
        " name its host"
    )
