"""The switch once more, in plain Python: what the table of a frame's walk (bpf/README.md) says, not how bpf/ does it.

    headers.py   bytes → what they say, by the RFCs
    tables.py    ports and segments, as they are set
    fdb.py       what it remembers of stations: step 13
    rates.py     what it remembers of rates: steps 11 and 15
    guards.py    steps 5 to 9
    answers.py   step 12
    leases.py    who has an address: steps 7 and 12
    multicast.py what IGMP, MLD and PIM say
    groups.py    step 18, where multicast follows them
    walk.py      one frame on its way
    switch.py    the table, from top to bottom
    choices.py   where the table leaves a choice: what was chosen, and why

It is slow, has no state in a kernel and is told the time. `tests/fuzz` sends the same frames through it and through the
loaded programs.
"""
