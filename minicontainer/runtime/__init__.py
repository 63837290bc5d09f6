"""runc's job: one container from one bundle. spec -> plan -> init -> exec; standard library only."""
