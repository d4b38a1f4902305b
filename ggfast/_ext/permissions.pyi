"""Face of ext/permissions.pyx: C only."""
