"""The settings of images that a person may choose; the names of their variables are in the environment of commands."""

DEFAULT_BASE = "python:3.13-slim-bookworm"
"""The base image; another one needs Python 3.11 or newer as `python3`, with its venv module."""

BASE_VARIABLE = "PERSTACK_BASE_IMAGE"
"""The base image on which an image is built."""

REGISTRY_VARIABLE = "PERSTACK_IMAGE_REGISTRY"
"""The registry from which the image of Sandboxes is pulled, HOST[:PORT][/PATH]; without it the image is built."""

PACKAGES_VARIABLE = "PERSTACK_PACKAGES"
"""The directory that has the packages of skills in an image of `perstack-orch build`."""
