"""How many examples hypothesis draws: enough to find what is wrong within seconds.

They are the same each time, so that who changed nothing sees nothing new; LAWS=deep draws more, and others each time.
No deadline, and none for the drawing: the machine may be busy with other things.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("patient"), max_examples=60, derandomize=True)
settings.register_profile("deep", settings.get_profile("patient"), max_examples=1000)
settings.load_profile(os.environ.get("LAWS", "quick"))
