"""The command pretrain; see --help."""

import sys

from detector.cli.pretrain import main

sys.exit(main())
