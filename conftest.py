"""What does every test, and every doctest of the package, get?"""

from __future__ import annotations

import os
import signal

import hypothesis

pytest_plugins = ["pytester", "tests.leaks", "tests.node"]

# No example has a deadline: the machine may be busy. CI asks whether a change broke something, and
# must answer alike twice; the search for new counterexamples runs at desks.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Under nohup, or in the background of a script, these are ignored, and so in every program that a
# test starts and then ends by them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
