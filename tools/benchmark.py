"""The command benchmark; see --help."""

import sys

from detector.cli.benchmark import main

sys.exit(main())
