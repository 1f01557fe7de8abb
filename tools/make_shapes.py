"""The command make_shapes; see --help."""

import sys

from detector.cli.make_shapes import main

sys.exit(main())
