"""python -m trio_ws: the command trio-ws."""

import sys

from ._command.main import main

sys.exit(main())
