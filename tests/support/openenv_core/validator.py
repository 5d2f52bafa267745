"""OpenEnv's own validation of a running server: `python validator.py URL` prints its report as JSON."""

import json
import sys

from openenv.cli._validation import validate_running_environment

print(json.dumps(validate_running_environment(sys.argv[1], timeout_s=20.0)))
