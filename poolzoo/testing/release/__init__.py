"""`poolzoo plugin check --release`: is a plugin ready to be published?

The checks build a plugin's wheel and sdist, look at both, install the wheel beside this poolzoo and the newest one, and
run the plugin's tests and the conformance checks there.
"""
