"""Runs a module of Raven for a supervisor, and ends when the supervisor does.

Standard input is the lifeline: the supervisor holds its other end, which closes when the supervisor ends, however it
ends. Then the program is asked to stop, and killed if it has not after a while.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

GRACE_S: Final = 10.0


def main() -> None:
    """Run the module named by the first argument with the others as its own."""
    threading.Thread(target=_end_with_supervisor, name="lifeline", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_supervisor() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
