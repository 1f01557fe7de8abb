"""The command plot_errors; see --help."""

import sys

from detector.cli.plot_errors import main

sys.exit(main())
