"""The command fetch_dataset; see --help."""

import sys

from detector.cli.fetch_dataset import main

sys.exit(main())
