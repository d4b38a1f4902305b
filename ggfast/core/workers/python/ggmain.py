"""A Python function in an interpreter of its own, when config.json names one for its runtime: see ggexec.py."""

import ggworker

if __name__ == "__main__":
    ggworker.main()
