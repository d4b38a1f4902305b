"""The handler object that old packages pick up under this name."""

from greengrass_common.local_cloudwatch_handler import LocalCloudwatchLogHandler

local_cloudwatch_handler = LocalCloudwatchLogHandler()
