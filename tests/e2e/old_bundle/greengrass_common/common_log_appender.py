"""The handler that the bundle's own modules log to."""

from greengrass_common.local_cloudwatch_handler import LocalCloudwatchLogHandler

local_cloudwatch_handler = LocalCloudwatchLogHandler("GreengrassSystem", "python_runtime")
