"""Jobs: work for things, told and reported by MQTT or HTTP (cloud-api 7, 8). Importing it registers every operation.

`creating` makes a job, `rollout` lets things' turns come, `executions` is the life of one thing's work, `data` and
`topics` are the devices' side, `records` knows where everything lies.
"""

from ggfast.cloud.jobs import data, execution_operations, operations, topics
from ggfast.cloud.jobs.service import IOT_JOBS_DATA

__all__ = ["IOT_JOBS_DATA", "data", "execution_operations", "operations", "topics"]
