"""What every server of ours has, and every client of one: who is let in, and why a connection ended."""
