"""runc's job: one container, from its configuration to exec; standard library only."""
