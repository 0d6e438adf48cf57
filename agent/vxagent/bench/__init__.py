"""`vxagent bench`: the switch against the Linux bridge, on this machine, in a lab of its own.

    cases       what is measured
    schedule    how often, how long, in which order
    figures     what the rounds come to, and whether they may be believed
    document    what is shown of it, and plot a picture of that

    frames      what is sent
    traffic     senders and receivers: C, compiled at the start
    programs    the BPF programs beside them: counters and limits
    paths       two VMs, and the devices between them
    contenders  what forwards between these devices; ovs is one more
    flows       how frames, TCP and round trips go over a path and are counted at its end
    lab         all of that together; idle_taps the same around a person's own two taps
    run         the rounds

Cases, schedule and figures are pure.

docs/bench.md says how it measures and why.
"""
