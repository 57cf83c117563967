"""Container images."""

from __future__ import annotations

from collections.abc import Iterable

from ...findings import Finding
from .subject import Subject


def image_tags(subject: Subject) -> Iterable[Finding]:
    """An image by name should say which of its versions; a file of an image needs no tag."""
    for key in ("container_image", "build_image"):
        written = subject.written(key)
        image = subject.values.get(written)
        if not isinstance(image, str) or not image:
            continue
        name = image.partition("://")[2] or image
        is_file = name.startswith(("/", "~", ".")) or name.endswith((".sqsh", ".sif"))
        last = name.rpartition("/")[2]
        if not is_file and ":" not in last and "@" not in last:
            yield subject.finding(
                "warning",
                written,
                f"The image '{image}' has no tag, so that what runs can change from day to day.",
                f"Name the version, for example {image}:1.0, or a digest.",
            )
