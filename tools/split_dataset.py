"""The command split_dataset; see --help."""

import sys

from detector.cli.split_dataset import main

sys.exit(main())
