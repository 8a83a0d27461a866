"""Examples enough to find what is wrong within seconds; no deadline: the machine may be busy with other things."""

from hypothesis import settings

settings.register_profile("quick", max_examples=60, deadline=None)
settings.load_profile("quick")
