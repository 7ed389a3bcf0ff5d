"""Reads the JSON of pip-audit: 0 nothing found, 1 something, 2 nothing was audited.

Its own exit code does not tell: where the service knows none of the packages, as a
mirror does not, it says that no vulnerability is known.
"""

import json
import sys
from pathlib import Path

#: What is ours, and on no index.
OWN = "asyncview"

try:
    found = json.loads(Path(sys.argv[1]).read_text("utf-8"))["dependencies"]
except ValueError:
    sys.exit(2)
audited = [each for each in found if "skip_reason" not in each]
skipped = [each for each in found if "skip_reason" in each and each["name"] != OWN]
if not audited:
    sys.exit(2)
for each in skipped:
    print("not audited:", each["skip_reason"])
for each in audited:
    for hole in each["vulns"]:
        fixed = ", ".join(hole["fix_versions"]) or "nowhere"
        print(f"{each['name']} {each['version']}: {hole['id']}, mended in {fixed}")
print(f"{len(audited)} distributions audited")
sys.exit(any(each["vulns"] for each in audited))
