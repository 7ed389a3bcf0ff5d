"""The front for Pyramid: everything that knows the framework."""
