//go:build tools

// Package gvisor names the program that dev/engines builds, so that go.mod keeps its module. The Go module of gVisor is
// its branch `go`, which has the generated files.
package gvisor

import _ "gvisor.dev/gvisor/runsc"
