"""The command check_dataset; see --help."""

import sys

from detector.cli.check_dataset import main

sys.exit(main())
