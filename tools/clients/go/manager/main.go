// A controller-runtime manager with leader election, against the cluster of KUBECONFIG: for each ManagerBundle it keeps spec.copies
// ConfigMaps with spec.value, says so in the status, and leaves a note when the bundle goes. `cargo xtask clients` runs two of them and
// checks them from outside. The argument is the name that it writes under.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgo "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	finalizer = "clients.corten.dev/guard"
	owned     = "clients.corten.dev/bundle"
	writer    = "clients.corten.dev/by"
	lease     = "clients-manager"
)

// ManagerBundle is the manager's own kind.
type ManagerBundle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Value  string `json:"value"`
		Copies int    `json:"copies"`
	} `json:"spec"`
	Status struct {
		Copies             int   `json:"copies"`
		ObservedGeneration int64 `json:"observedGeneration"`
	} `json:"status,omitempty"`
}

// DeepCopyObject makes it a runtime.Object.
func (b *ManagerBundle) DeepCopyObject() runtime.Object {
	copied := *b
	b.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	return &copied
}

// ManagerBundleList is a list of them.
type ManagerBundleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ManagerBundle `json:"items"`
}

// DeepCopyObject makes it a runtime.Object.
func (l *ManagerBundleList) DeepCopyObject() runtime.Object {
	copied := *l
	copied.Items = nil
	for i := range l.Items {
		copied.Items = append(copied.Items, *l.Items[i].DeepCopyObject().(*ManagerBundle))
	}
	return &copied
}

type keeper struct {
	client.Client
	name string
}

func (k *keeper) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	bundle := &ManagerBundle{}
	if err := k.Get(ctx, request.NamespacedName, bundle); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !bundle.DeletionTimestamp.IsZero() {
		note := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: bundle.Name + "-goodbye", Namespace: bundle.Namespace},
			Data:       map[string]string{"value": "cleaned up"},
		}
		if err := k.Create(ctx, note); err != nil && !apierrors.IsAlreadyExists(err) {
			return ctrl.Result{}, err
		}
		controllerutil.RemoveFinalizer(bundle, finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(k.Update(ctx, bundle))
	}
	if controllerutil.AddFinalizer(bundle, finalizer) {
		if err := k.Update(ctx, bundle); err != nil {
			return ctrl.Result{}, err
		}
	}
	for i := range bundle.Spec.Copies {
		one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", bundle.Name, i), Namespace: bundle.Namespace}}
		_, err := controllerutil.CreateOrPatch(ctx, k.Client, one, func() error {
			one.Labels = map[string]string{owned: bundle.Name}
			one.Annotations = map[string]string{writer: k.name}
			one.Data = map[string]string{"value": bundle.Spec.Value}
			return controllerutil.SetControllerReference(bundle, one, k.Scheme())
		})
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	maps := &corev1.ConfigMapList{}
	if err := k.List(ctx, maps, client.InNamespace(bundle.Namespace), client.MatchingLabels{owned: bundle.Name}); err != nil {
		return ctrl.Result{}, err
	}
	for i := range maps.Items {
		number, err := strconv.Atoi(strings.TrimPrefix(maps.Items[i].Name, bundle.Name+"-"))
		if err == nil && number < bundle.Spec.Copies {
			continue
		}
		if err := k.Delete(ctx, &maps.Items[i]); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
	}
	before := bundle.DeepCopyObject().(*ManagerBundle)
	bundle.Status.Copies, bundle.Status.ObservedGeneration = bundle.Spec.Copies, bundle.Generation
	return ctrl.Result{}, k.Status().Patch(ctx, bundle, client.MergeFrom(before))
}

func main() {
	log.SetLogger(zap.New(zap.UseDevMode(true), zap.WriteTo(os.Stderr)))
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run() error {
	scheme := runtime.NewScheme()
	if err := clientgo.AddToScheme(scheme); err != nil {
		return err
	}
	version := schema.GroupVersion{Group: "clients.corten.dev", Version: "v1"}
	scheme.AddKnownTypes(version, &ManagerBundle{}, &ManagerBundleList{})
	metav1.AddToGroupVersion(scheme, version)
	// Short, so that a change of leaders does not take the defaults' fifteen seconds.
	duration, deadline, period := 4*time.Second, 3*time.Second, 500*time.Millisecond
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:         scheme,
		LeaderElection: true, LeaderElectionID: lease, LeaderElectionNamespace: "default",
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &duration, RenewDeadline: &deadline, RetryPeriod: &period,
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(manager).For(&ManagerBundle{}).Owns(&corev1.ConfigMap{}).
		Complete(&keeper{Client: manager.GetClient(), name: os.Args[1]})
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
