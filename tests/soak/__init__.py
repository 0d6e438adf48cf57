"""The soak: random operations beside streams of numbered frames, and what is left of them in the end.

    sample      what the agent and its switch have, and how two such looks differ
    lab         the switch of `vxagent bench --faults`, devices for operations, and the way back to where it began
    operations  all that a user can do, in an order that a seed decides
    run         rounds of operations under the streams, a sample after each

docs/reliability.md says what it shows and how to read it. `python -m soak`, which is `make soak`, runs it.
"""
