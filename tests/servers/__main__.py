"""`python -m tests.servers install`: set up the servers that tests run against, once."""

from __future__ import annotations

import sys

from tests.servers.install import install

if sys.argv[1:] != ["install"]:
    sys.exit("usage: python -m tests.servers install")
print(install())
