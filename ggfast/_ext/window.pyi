"""Face of ext/window.pyx: C only."""
