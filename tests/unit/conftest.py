"""What holds for all unit tests: how many examples are drawn."""

import examples  # noqa: F401
