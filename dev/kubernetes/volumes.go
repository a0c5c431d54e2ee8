package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "perstack.ai/directory"

// volumes makes a directory on the node for each claim whose StorageClass names this provisioner. The parameters of a
// class set what a real storage system would decide:
//
//	mode         permissions of the volume's root, which belongs to root; octal
//	accessModes  "any", or the one that is granted; a claim for another stays pending with an event
//	fsGroup      "true" if the kubelet may give the volume to a Pod's fsGroup, as with block storage
func volumes(parent context.Context) error {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	root := flag.String("root", "", "where the directories are")
	node := flag.String("node", "", "the node that has them")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*root, 0o711); err != nil {
		return err
	}
	controller.NewProvisionController(
		ctx, client, provisionerName, directories{root: *root, node: *node},
		controller.LeaderElection(false),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 10*time.Second)),
	).Run(ctx)
	return nil
}

type directories struct{ root, node string }

func (d directories) Provision(_ context.Context, wanted controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	parameters := wanted.StorageClass.Parameters
	mode, err := strconv.ParseUint(parameters["mode"], 8, 32)
	if err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("StorageClass %s: mode: %w", wanted.StorageClass.Name, err)
	}
	if granted := core.PersistentVolumeAccessMode(parameters["accessModes"]); granted != "any" {
		if slices.ContainsFunc(wanted.PVC.Spec.AccessModes, func(mode core.PersistentVolumeAccessMode) bool { return mode != granted }) {
			return nil, controller.ProvisioningFinished, fmt.Errorf("only access mode %s is supported", granted)
		}
	}
	path := filepath.Join(d.root, wanted.PVName)
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return nil, controller.ProvisioningFinished, err
	}
	// Not by Mkdir: the umask must not apply.
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: wanted.PVName},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   wanted.PVC.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: wanted.PVC.Spec.Resources.Requests[core.ResourceStorage]},
			NodeAffinity:                  d.affinity(),
			PersistentVolumeReclaimPolicy: *wanted.StorageClass.ReclaimPolicy,
			PersistentVolumeSource:        source(path, parameters["fsGroup"] == "true"),
			MountOptions:                  wanted.StorageClass.MountOptions,
		},
	}, controller.ProvisioningFinished, nil
}

func (d directories) Delete(_ context.Context, volume *core.PersistentVolume) error {
	return os.RemoveAll(filepath.Join(d.root, volume.Name))
}

func (d directories) affinity() *core.VolumeNodeAffinity {
	here := core.NodeSelectorRequirement{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{d.node}}
	return &core.VolumeNodeAffinity{Required: &core.NodeSelector{
		NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{here}}},
	}}
}

// The kubelet changes the owner of a local volume for an fsGroup, and never that of a hostPath.
func source(path string, fsGroup bool) core.PersistentVolumeSource {
	if fsGroup {
		return core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}}
	}
	directory := core.HostPathDirectory
	return core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: path, Type: &directory}}
}
