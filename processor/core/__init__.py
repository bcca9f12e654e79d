"""Decisions without I/O: what is complete, what is live, what may start. Clock and randomness are passed in."""
