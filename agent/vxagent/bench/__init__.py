"""`vxagent bench`: the switch against the Linux bridge, on this machine, in a lab of its own.

    cases    what is measured; figures what its rounds come to, and whether they may be believed       pure
    traffic  senders and receivers, C compiled at the start; programs the BPF programs beside them
    frames   what is sent
    paths    two VMs and the devices between them; contenders what forwards between these devices
    flows    how frames, TCP and round trips are sent over a path and counted at its end
    run      the rounds; document and plot what is shown of them
    idle_taps  the same on a person's own two taps

docs/bench.md says how it measures and why.
"""
