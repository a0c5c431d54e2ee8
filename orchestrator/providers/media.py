"""Convert images and files of a message to the formats of the APIs. Pure functions."""

import base64
import binascii

from orchestrator.wire.message import FileBinaryPart, FileInlinePart, ImageBinaryPart, ImageInlinePart

MediaPart = ImageInlinePart | ImageBinaryPart | FileInlinePart | FileBinaryPart


def encoded(part: MediaPart) -> str:
    """The bytes as base64; a string with other characters than bytes is encoded as UTF-8 first."""
    if isinstance(part, ImageInlinePart | FileInlinePart):
        return part.encoded_data
    try:
        return base64.b64encode(part.data.encode("latin-1")).decode()
    except UnicodeEncodeError:
        return base64.b64encode(part.data.encode()).decode()


def data_url(part: MediaPart) -> str:
    """The bytes as a `data:` URL."""
    return f"data:{part.mime_type};base64,{encoded(part)}"


def read_text(part: FileInlinePart | FileBinaryPart) -> str:
    """The content of a text file.

    Raises:
        ValueError: it cannot be read as text; the message is a sentence about the file for the model.
    """
    if not part.mime_type.startswith("text/"):
        message = f"[a file of type {part.mime_type}, which this model does not read]"
        raise ValueError(message)
    try:
        return base64.b64decode(encoded(part), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        message = f"[a file of type {part.mime_type} that is not valid text]"
        raise ValueError(message) from error


def text_of(part: FileInlinePart | FileBinaryPart) -> str:
    """The content of a text file, or a sentence about the file if it cannot be read as text."""
    try:
        return read_text(part)
    except ValueError as error:
        return str(error)
