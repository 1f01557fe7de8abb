"""The command train; see --help."""

import sys

from detector.cli.train import main

sys.exit(main())
