"""Autobahn's own fuzzing client, for CPython 2.7: `fuzzingclient.py SITE SPEC`."""

import sys

sys.path.insert(0, sys.argv[1])
sys.argv[1:] = ["--mode", "fuzzingclient", "--spec", sys.argv[2]]

from autobahntestsuite import wstest  # noqa: E402

wstest.run()
