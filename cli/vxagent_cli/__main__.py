"""`python -m vxagent_cli`"""

from vxagent_cli.app import main

main()
