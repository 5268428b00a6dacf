"""From an archive and a machine to settings: what is there, what follows from it, and why."""
