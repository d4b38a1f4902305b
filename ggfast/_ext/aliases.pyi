"""Face of ext/aliases.pyx: C only."""
