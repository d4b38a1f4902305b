"""A decorator that repeats a call with growing pauses."""

import functools
import time


def retry(
    time_out_secs,
    multiplier=2,
    init_delay_secs=0.05,
    max_delay_secs=30,
    should_retry=lambda _error: True,
):
    """Repeat while `should_retry(error)` holds and the pauses add up to less than `time_out_secs`."""

    def decorate(function):
        @functools.wraps(function)
        def repeated(*args, **kwargs):
            delay, slept = init_delay_secs, 0.0
            while True:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if slept + delay > time_out_secs or not should_retry(error):
                        raise
                time.sleep(delay)
                slept += delay
                delay = min(delay * multiplier, max_delay_secs)

        return repeated

    return decorate
