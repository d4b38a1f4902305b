"""The Lambda runtime's daemon side: which functions run, their queues and invocations."""
