"""Face of ext/routecache.pyx: C only."""
