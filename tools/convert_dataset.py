"""The command convert_dataset; see --help."""

import sys

from detector.cli.convert_dataset import main

sys.exit(main())
