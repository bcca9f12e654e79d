"""Does a test notice when its rule is broken? Each mutant breaks one rule of the design in a copy of the sources, and
the test that bears the rule's name must fail there. `make mutants`, or `python -m tests.mutants NAME...`.
"""
