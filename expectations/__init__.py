"""Great Expectations suites as code, and the runner that splits pairs into accepted and quarantined."""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read once, when great_expectations is first imported
