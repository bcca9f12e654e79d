"""How fast the engine is, beside hand-written loops in the same run: `python -m benchmarks`, see docs/benchmarks.md.

__main__     the command: a broker, the benches one after the other, build/bench.json, a table
rows         one measured value and its bar
world        a namespace of its own on the broker: topics, jobs to run, worker processes
jobs         the app whose jobs are run
engine       one worker process that says how it went
bare         what a hand-written loop does in the same place
throughput   jobs and steps per second
order        jobs of 10 ms in the order of their keys
latency      from enqueue to start; what a checkpoint costs
takeover     crashes, scaling in, scaling out
endurance    restoring, and memory over many jobs
"""
