package main

import (
	"context"
	"errors"
	"flag"
	"net"
)

// outside is a host beyond the cluster, for machines that reach no other: it sends a greeting on each
// connection to one of its addresses, and closes it.
func outside(context.Context) error {
	flag.Parse()
	failed := make(chan error)
	for _, address := range flag.Args() {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { failed <- greet(listener) }()
	}
	if flag.NArg() == 0 {
		return errors.New("usage: kube outside ADDRESS:PORT...")
	}
	return <-failed
}

func greet(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		connection.Write([]byte("outside\n"))
		connection.Close()
	}
}
