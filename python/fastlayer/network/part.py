"""Temporary."""

from fastlayer.network.chain import Flatten

__all__ = ["Flatten"]
