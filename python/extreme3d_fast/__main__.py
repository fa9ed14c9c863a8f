"""`python -m extreme3d_fast` is the command `extreme3d`."""

import sys

from extreme3d_fast.cli import main

sys.exit(main())
