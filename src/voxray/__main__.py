"""`python -m voxray`, which is `voxray`."""

import sys

from voxray.cli import main

sys.exit(main())
