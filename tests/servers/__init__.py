"""Real database servers for tests: TimescaleDB, plain PostgreSQL and InfluxDB, started and broken at will.

`python -m tests.servers install` sets them up once (cached); the fixtures of tests.servers.fixtures hand them out:

- `postgres` (TimescaleDB), `plain_postgres`, `influx`: one server a session, for everybody; never break these.
- `database`: the URL of a fresh database on `postgres`; `bucket`: a fresh bucket on `influx`.
- `own_postgres(...)`, `own_influx(...)`: a server of one's own, to be killed, paused, filled; ends with the test.

Where servers come from, first that fits: URLs in the environment (RAVEN_TEST_POSTGRES_URL, RAVEN_TEST_INFLUX_URL with
_TOKEN, _ORG, _BUCKET), Debian's packages in folders of their own (root on Debian), `docker compose`. A server that is
not started here (`managed` is False) is broken through a proxy before it; what only its owner can do (fill its disk,
change its token) skips the test. `own_proxy(server.port)` stands before any server, for faults of the way to it.

Every process ends with the test run, however that ends, and leaves nothing behind: see `sandbox`.
"""

from __future__ import annotations
