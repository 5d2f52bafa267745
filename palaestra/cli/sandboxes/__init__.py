"""`palaestra sandboxes ...`: who holds what, what is left over, and sandboxes for other machines."""
