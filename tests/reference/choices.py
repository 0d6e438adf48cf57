"""Where the table of a frame's walk leaves a choice: what the switch does, and why. Each is one number or one sentence.

Reading (step 1)
- Two tags count as Ethernet, whatever comes behind the second is L3 to the MTU: nobody sends more, and a VLAN of the
  physical network has no larger frames for them.
- Inspected is what comes from a port that has locks or is not trusted; of others nothing behind the second tag is read.
- A header is there when the part that is read is: the first 4 bytes of an extension header, 8 of UDP and ICMPv6. Of ARP
  and ND the whole message, where the port has locks, because only then anybody looks at it.
- Version nibbles, checksums and hop limits are the receiver's to check.
- A GSO frame is measured by the largest of its segments, which the kernel will cut. Where that can be read in two ways
  (UDP over IPv4 with a multiple of 8, and what is neither TCP nor UDP) the smaller one counts, so that nothing is
  dropped that would fit.
- A payload length of 0 in IPv6 says that it ends with the frame (RFC 2675, jumbograms; Linux takes it so).

Tunnels (step 0)
- A frame has at least as much as an IPv4 header behind Ethernet's: the kernel takes no less out of a packet, and it
  is malformed.
- A frame that is denied is counted with its packet, into which nobody has looked.

Hidden (step 7, `fragment_denied`)
- Behind more than nine tags or eight extension headers nobody looks. Nothing honest has as many.
- A first fragment shows its UDP or ICMPv6 header within the packet's own length (RFC 7113, section 3). Later ones pass.
- ND in a fragment, where the port has locks (RFC 6980, section 5).

Guards (steps 5 to 9)
- A MAC lock asks the segment in which the frame is: a trunk lists its MACs in all of its segments.
- Step 6 holds for uplinks among themselves too: a static entry says where a station is, not which kind of port it has.
  Migrating are a port in standby, holding or draining, and what the cluster has elsewhere while such a port brings it.
- In shadow a frame counts once for each stage that refuses it (a header of steps 7 to 9; 5 and 6; 7; 8; 9; 11) and goes
  on. What a guard could not read no further guard looks at.
- An ND message may name any MAC that its port lists, and all MACs are its own source's where none are listed.

Rates (steps 11 and 15)
- A frame weighs what it puts on the wire from its Ethernet header on, each segment of a GSO frame with all headers.
- The tag that it came with is charged on arrival, the one that it leaves with on departure.
- Refused by one of two limits it pays neither; by a storm limit it has paid the rate.
- A bucket that owes more than it holds twice over is only empty: it was filled under another rate.

Answers (step 12)
- Asked is by broadcast ARP of IPv4 over Ethernet, and by NS to the target's solicited-node group, as RFC 4861, 7.1.1,
  wants it, with no extension headers and at most 16 bytes of options. Anything else is for the hosts to judge.
- Named is the only port that lists an address, by the only MAC that it lists; not a trunk or one in shadow, not a
  router's link-local address, not the asker's own, and nobody whom the asker could not reach: down, without a device,
  both isolated.
- Uplinks are not answered, and neither is who names another MAC than the frame's own.
- An answer is a copy that the asker's port gets: it costs its rate of departure. Nothing is learned from the question.

Learning (step 13)
- An aged entry is absent but keeps its place in the quota until the agent removes it.
- `seen` is kept to a second.
- Quota before rate, rate before a full FDB. What one refuses takes of none that follow.
- A MAC is held beyond 5 moves in 10 s, counted from the first one, for 60 s: learned at home alone, the port that had
  it before. A MAC that had aged out, and one whose port, old or new, is migrating, does not move.
- The move that begins the hold and leads away from home is not made, but is paid for.

Events
- A port tells four of each kind at once, and then one a second; of others it is counted that they were not told. A hold
  is the rival's event, any other the sender's.

Leases (step 7)
- A lease is of a MAC, on the port where the FDB has it, if that port is held to its leases. DHCPv6 names no MAC: the
  receiver of the frame is the client.
- Servers are believed on uplinks and trusted ports; a VM can only end its own leases. A frame that a guard refuses says
  nothing, in shadow neither, nor does one that goes nowhere.
- A message is read to the end of its packet. Fragments, extension headers, a second tag, overloaded options, more than
  64 options or 8 addresses, and anything that is cut off: it says nothing at all.
- Without a lease time it is for ever. DHCPNAK names no address, so it ends nothing.
- The server is the authority: what it leases to another port is taken from who had it. What ports list stays theirs.
- Beyond 64 leases of a port, and with a full table, a lease is refused and the message goes on.
- Such a message goes to everybody, where it is multicast too.

Groups (step 18)
- A message counts if hosts and routers would take it: TTL or hop limit 1, no fragment, IGMP and MLD that end with the
  packet, which ends within the frame; MLD behind a Hop-by-Hop header and from a link-local address or ::. Of general
  queries also the checksum, the MAC and, of IGMP, the destination.
- Nobody is told apart by sources: who wants one gets the group; to block some says nothing.
- While there is no querier everybody gets everything, and so does a port that has not been asked, or had no time to
  answer, or joined more than there is room for. A query for one group and what is not understood are for all.
- The times are the RFCs' defaults, whatever a query says.

Receivers (steps 14 to 18)
- Hairpin comes before isolated, and both ask only where the FDB says that the receiver is.
- A frame with a second tag that would leave untagged to one port is dropped as `vlan_denied`, from wherever it came; a
  flood leaves out the members that would get it untagged.
- A flood that reaches nobody is a flood.
"""

from __future__ import annotations

TAGS_OF_ETHERNET = 2
MOST_TAGS = 9
LEAST_IN_TUNNEL = 34
MOST_EXTENSIONS = 8
MOST_ND_OPTIONS = 8

REFRESH_NS = 10**9
MOVES, MOVES_NS, HOLD_NS = 5, 10 * 10**9, 60 * 10**9

MEMBERSHIP_NS = 260 * 10**9  # RFC 3376, 8.4
QUERIER_NS = 255 * 10**9  # 8.5
LEAVE_NS = 2 * 10**9  # 8.10
JOINS, JOINS_UPLINK = 256, 4096  # of a port in a segment, in the life of a membership
MOST_RECORDS = 64

MOST_DHCP_OPTIONS = 64
MOST_IAADDRS = 8
MOST_LEASES = 64  # of a port

TICKS_PER_NS = 16  # a bucket's level is a time, and 1/16 ns is what a frame of 64 bytes is told apart by at 100 Gbit/s
TICKS_PER_S = 10**9 * TICKS_PER_NS
BURST_TICKS = TICKS_PER_S // 4  # 250 ms
BURST_BITS = 128 * 1024 * 8
BURST_PACKETS = 64
STORM_TICKS = LEARN_TICKS = TICKS_PER_S  # one second
EVENTS_AT_ONCE, EVENT_TICKS = 4, TICKS_PER_S
