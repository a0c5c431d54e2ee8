"""Jobs that a coordinator works in a Kubernetes cluster, and clients that follow them."""
