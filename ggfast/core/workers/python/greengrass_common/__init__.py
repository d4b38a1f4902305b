"""The part of the runtime that published function SDKs import (sdk-contract 4)."""
