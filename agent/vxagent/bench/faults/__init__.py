"""`vxagent bench --faults`: what the agent does and suffers, and whether a frame is lost by it.

    efforts  how often and how long: --quick, or in full
    figures  what the numbers of a stream come to, and what makes a run invalid
    document what is shown of it

    tunnel   frames as another host sends them by VXLAN
    stream   numbered frames and who counts them: `c/stream.c`, compiled at the start
    lab      the devices, the agent and the streams through it
    ending   the agent is killed, hangs, is stopped
    working  the agent does what it is asked to
    lacking  something that the agent needs is not to be had
    table    all faults, a row for each
    run      one row after the other

Efforts, figures, document and tunnel are pure.

docs/reliability.md says how it measures, and shows what a run printed.
"""
