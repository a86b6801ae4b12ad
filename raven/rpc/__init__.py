"""gRPC: generated code, publish/subscribe hub, server, client, and the follower of an upstream."""
