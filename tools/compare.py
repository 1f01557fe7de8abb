"""The command compare; see --help."""

import sys

from detector.cli.compare import main

sys.exit(main())
