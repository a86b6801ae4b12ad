"""gRPC: generated code, publish/subscribe hub, server, client, and the follower of an upstream."""

import os

# read when grpc is imported: its lines on standard error are no events of ours, and what fails is raised, too
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
