"""HTTP/1.1 as a client, over h11: the one way to the Docker engine, to the Kubernetes API and to other HTTP servers.

`connection_pool.ConnectionPool` is where to start: requests to one server, over connections that are used again.
"""
