"""A package of its own, for what is relative to one."""
