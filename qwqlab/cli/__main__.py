"""`python -m qwqlab.cli`, as accelerate starts it in each of several processes."""

import sys

from . import main

sys.exit(main())
