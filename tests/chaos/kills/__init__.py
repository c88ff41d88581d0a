"""Real processes, really killed, frozen and starved, under real traffic; and the verdict over what is left."""
