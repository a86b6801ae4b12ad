"""gRPC: generated code, publish/subscribe hub, server, client, access and guard, and the follower of an upstream."""

import os

# gRPC's core writes a line of its own for every handshake that fails; Raven says it once, with the remedy
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
