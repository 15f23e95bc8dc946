"""`python -m loadtest run|find-capacity`: one load test, in a process of its own.

Errors are one message on standard error: 2 if what was asked for makes no sense, 1 if something
else is wrong; no load was sent then. Ctrl-C ends it early: what was measured is written.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402  # behind the patching

from loadtest.command import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
