"""The command evaluate; see --help."""

import sys

from detector.cli.evaluate import main

sys.exit(main())
