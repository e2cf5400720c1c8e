"""What the integration tests share: a private PostgreSQL, the real gateway, signers, raw sockets."""
