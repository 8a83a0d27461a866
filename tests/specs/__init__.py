"""Specs by chance, made from the CRD's schema, and what must be true of whatever they are edited into.

    chances.py     draws valid specs, and edits of them                                             no I/O
    shop.py        a namespace of the local cluster in which such specs publish something
    standing.py    what stands in Consul, all of it, told so that two registrations can be compared
    edits.py       A, then B, then A again: each is as if it had never been anything else
    random_run.py  registrations and Pods come, change and go; in the end nothing is wrong and nothing is left

`make test` runs a round of each; `make specs ROUNDS=20 SEED=7` runs more.
"""
