"""The command line of vxagent: asks the agent in a run dir and shows what it says."""
