"""``python -m simulator.lambda_cloud``."""

import sys

from simulator.lambda_cloud.server import main

sys.exit(main())
