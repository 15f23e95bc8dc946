"""Where the one-node cluster is: a network of two addresses between this machine and the node, and
what lies behind the node.
"""

HOST = "10.77.0.1"
NODE = "10.77.0.2"
PREFIX = 30
HOST_LINK = "r1host"
NODE_LINK = "r1node"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
API = "10.96.0.1"  # the first of the services
DNS = "10.96.0.10"
API_PORT = 6443
API_URL = f"https://{NODE}:{API_PORT}"
NODE_NAME = "node-1"
CGROUP = "r1-serve-cluster"
"""Of everything that the node's pods run in, in each of the kernel's hierarchies."""
