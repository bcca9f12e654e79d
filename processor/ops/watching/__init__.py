"""Saved filters that are alerts: `decision` (pure) says when one is told, `watch` asks the projection and tells.

The process that keeps the projection watches. What was told stands beside the filters in the database, so several
processes on one database tell a thing once, and a restart tells nothing again.
"""
