"""The labels of the images that this package builds."""

from collections.abc import Mapping

from orchestrator.version import VERSION

SOURCE_LABEL = "perstack.ai/source"
"""The digest of the files that went into an image; no other image has this label."""

BASE_LABEL = "org.opencontainers.image.base.name"
VERSION_LABEL = "org.opencontainers.image.version"


def labels(digest: str, base: str) -> Mapping[str, str]:
    """Return the labels of an image that is built from files with this digest on `base`.

    The names are those of the Open Containers Initiative
    (https://github.com/opencontainers/image-spec/blob/main/annotations.md).
    """
    return {
        SOURCE_LABEL: digest,
        BASE_LABEL: base,
        VERSION_LABEL: VERSION,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
