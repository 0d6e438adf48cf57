"""`vxagent` on a kernel before 6.6, which has no tcx links. Run by path, with the words of the command line."""

from vxagent.datapath import bpf_link
from vxagent_cli.app import main

if __name__ == "__main__":
    bpf_link.has_tcx = lambda: False
    main()
