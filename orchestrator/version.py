"""The version of this package, and of the image that belongs to it."""

VERSION = "0.1.0"
