"""Parameter groups, learning-rate schedules, and what is checked of both before torch is imported."""
