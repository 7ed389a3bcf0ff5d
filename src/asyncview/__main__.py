"""``python -m asyncview`` is the ``asyncview`` command."""

import sys

from asyncview.cli import main

sys.exit(main())
