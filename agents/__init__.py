"""Training: everything that needs torch or Ray lives here, and nothing in the core imports it."""
