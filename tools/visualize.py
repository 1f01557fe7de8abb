"""The command visualize; see --help."""

import sys

from detector.cli.visualize import main

sys.exit(main())
