"""The same settings and frames, through the reference switch and through the loaded programs; both must do the same.

setting.py   a setting of the switch: rows for the programs, ports and segments for the reference
drawn.py     settings that hypothesis draws
grammar.py   frames of every shape, each made from one number
bench.py     the programs on taps
play.py      a setting and its frames on both, and what differs
run.py       the long run, `make fuzz`
"""
