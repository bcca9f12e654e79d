"""`processor demo`: the whole story on real input, with a real Kafka and real crashes.

corpus    the input: every Python source file of the running interpreter's standard library
jobs      the app: one job per file and definition, and one long walk over every line
ledger    the outside world: a SQLite file that honours idempotency keys and counts what really ran
odometer  what a run of the walk did, seen from outside, also when its process is killed
fleet     the worker processes
watch     the status topic as the story reads it
count     the plain sequential count that the jobs must agree with
screen    chapters and progress bars
report    the reckoning
story     the chapters in their order
"""
