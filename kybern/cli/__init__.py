"""The `kybern` command.

What is wrong with a daemon is in the answers: gRPC's own log lines are kept away from people. gRPC reads the variable
when it is loaded, so this comes before anything that does so.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
