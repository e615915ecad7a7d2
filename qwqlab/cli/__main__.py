"""`python -m qwqlab.cli`, where the program `qwqlab` is not on the path."""

import sys

from . import main

sys.exit(main())
