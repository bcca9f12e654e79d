"""Replaying, decided without I/O: which jobs of a queue's history run again, as what, and what was sent already.

spec        what an operator wants: from where, which jobs, into what
history     the records of the lanes, folded into jobs; which of them are meant, in which order
lives       the job that a replayed job becomes
journal     what the audit topic says of replays: where each began, and which jobs it has sent
"""
