"""Face of ext/outliving.pyx: C only."""
