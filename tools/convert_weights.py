"""The command convert_weights; see --help."""

import sys

from detector.cli.convert_weights import main

sys.exit(main())
