"""Examples enough to find what is wrong within seconds; no deadline: the machine may be busy with other things.

They are the same each time, so that who changed nothing sees nothing new; LAWS=deep draws more, and others each time.
"""

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("LAWS", "quick"))
