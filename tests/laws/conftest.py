"""What holds for all laws: how many examples are drawn."""

import examples  # noqa: F401
