"""A network on one machine: namespaces, VMs, a physical network beyond the uplink, senders and receivers.

Shared by the demo, the benchmarks and the tests. It looks at the switch from outside: through `vxagent`, devices and
frames. Needs root, iproute2 and iputils-ping; `traffic.iperf3` needs iperf3.
"""
