"""Cuts a watch's byte stream into lines. Knows nothing of what stands in them."""


class LineSplitter:
    """Collects chunks until a line is whole.

    Every byte is copied a bounded number of times, however large the line and however small the chunks: concatenating
    to one buffer instead would be quadratic for a line of megabytes.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their ends; empty lines are left out."""
        lines = chunk.split(b"\n")
        self._parts.append(lines[0])
        if len(lines) == 1:
            return []
        lines[0] = b"".join(self._parts)
        self._parts = [lines.pop()]
        return [line for line in lines if line]
