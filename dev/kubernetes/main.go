// Command kube is a whole single-node Kubernetes in one binary: `kube COMPONENT [FLAGS]`. One link instead of ten saves
// minutes of building, and half a gigabyte. Called by the name of a component (a symbolic link), it is that component.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// A component reads os.Args itself, with its own name in front.
var components = map[string]func(context.Context) error{
	"coredns":                 func(context.Context) error { coredns(); return nil },
	"etcd":                    func(context.Context) error { etcdmain.Main(os.Args); return nil },
	"kube-apiserver":          command(func(context.Context) *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": command(func(context.Context) *cobra.Command { return controllers.NewControllerManagerCommand() }),
	"kube-proxy":              command(func(context.Context) *cobra.Command { return proxy.NewProxyCommand() }),
	"kube-scheduler":          command(func(context.Context) *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubectl":                 command(func(context.Context) *cobra.Command { return kubectl.NewDefaultKubectlCommand() }),
	"kubelet":                 command(kubelet.NewKubeletCommand),
	"outside":                 outside,
	"policies":                policies,
	"volumes":                 volumes,
}

func main() {
	if name := filepath.Base(os.Args[0]); components[name] == nil {
		os.Args = os.Args[1:]
	}
	if len(os.Args) == 0 || components[filepath.Base(os.Args[0])] == nil {
		names := slices.Sorted(maps.Keys(components))
		fmt.Fprintln(os.Stderr, "usage: kube COMPONENT [FLAGS], where COMPONENT is one of", strings.Join(names, " "))
		os.Exit(2)
	}
	if err := components[filepath.Base(os.Args[0])](context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(build func(context.Context) *cobra.Command) func(context.Context) error {
	return func(ctx context.Context) error {
		os.Exit(cli.Run(build(ctx)))
		return nil
	}
}

// Plugins answer in this order: the cluster's own names first, everything else as the node does.
func coredns() {
	dnsserver.Directives = []string{"ready", "errors", "cache", "kubernetes", "forward"}
	coremain.Run()
}
