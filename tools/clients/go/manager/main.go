// A controller-runtime manager with leader election, against the cluster of KUBECONFIG: a controller keeps a Secret beside each
// ConfigMap that asks for one. It ends with 0 if the server does what such a manager relies on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	wanted    = "clients.corten.dev/secret"
	finalizer = "clients.corten.dev/guard"
	lease     = "clients-manager"
)

// keeper makes the Secrets; its name tells which manager did it.
type keeper struct {
	client.Client
	name string
}

func (k *keeper) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	source := &corev1.ConfigMap{}
	if err := k.Get(ctx, request.NamespacedName, source); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if source.Labels[wanted] == "" {
		return ctrl.Result{}, nil
	}
	if !source.DeletionTimestamp.IsZero() {
		controllerutil.RemoveFinalizer(source, finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(k.Update(ctx, source))
	}
	if controllerutil.AddFinalizer(source, finalizer) {
		if err := k.Update(ctx, source); err != nil {
			return ctrl.Result{}, err
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: source.Name, Namespace: source.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, k.Client, secret, func() error {
		secret.StringData = map[string]string{"value": source.Data["value"], "by": k.name}
		return controllerutil.SetControllerReference(source, secret, k.Scheme())
	})
	return ctrl.Result{}, err
}

func main() {
	log.SetLogger(zap.New(zap.UseDevMode(true), zap.WriteTo(os.Stderr)))
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
	fmt.Println("manager: ok")
}

// start runs a manager in a namespace until its context ends.
func start(ctx context.Context, rest *rest.Config, namespace, name string) (<-chan struct{}, <-chan error, error) {
	again := true
	duration, deadline, period := 4*time.Second, 3*time.Second, 500*time.Millisecond
	manager, err := ctrl.NewManager(rest, ctrl.Options{
		LeaderElection: true, LeaderElectionID: lease, LeaderElectionNamespace: namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &duration, RenewDeadline: &deadline, RetryPeriod: &period,
		Metrics:    server.Options{BindAddress: "0"},
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
		Controller: config.Controller{SkipNameValidation: &again},
	})
	if err != nil {
		return nil, nil, err
	}
	err = ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Owns(&corev1.Secret{}).
		Complete(&keeper{Client: manager.GetClient(), name: name})
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	return manager.Elected(), ended, nil
}

func run() error {
	rest, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	direct, err := client.New(rest, client.Options{})
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "manager-"}}
	if err := direct.Create(ctx, namespace); err != nil {
		return err
	}
	defer direct.Delete(context.Background(), namespace)

	first, stopFirst := context.WithCancel(ctx)
	defer stopFirst()
	elected, firstEnded, err := start(first, rest, namespace.Name, "first")
	if err != nil {
		return err
	}
	if err := await(ctx, elected, "the first manager was not elected"); err != nil {
		return err
	}
	secondElected, _, err := start(ctx, rest, namespace.Name, "second")
	if err != nil {
		return err
	}
	if err := work(ctx, direct, namespace.Name, "one", "first"); err != nil {
		return err
	}
	select {
	case <-secondElected:
		return errors.New("two leaders at once")
	default:
	}
	stopFirst()
	if err := <-firstEnded; err != nil {
		return fmt.Errorf("the first manager ended with %w", err)
	}
	if err := await(ctx, secondElected, "the second manager was not elected"); err != nil {
		return err
	}
	held := &coordinationv1.Lease{}
	if err := direct.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: lease}, held); err != nil {
		return err
	}
	fmt.Println("manager: the lease changed hands", *held.Spec.LeaseTransitions, "times")
	return work(ctx, direct, namespace.Name, "two", "second")
}

func await(ctx context.Context, done <-chan struct{}, otherwise string) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New(otherwise)
	}
}

// work has the leader keep a Secret: made, changed, made again, and gone with its owner.
func work(ctx context.Context, direct client.Client, namespace, name, leader string) error {
	source := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{wanted: "yes"}},
		Data:       map[string]string{"value": "a"},
	}
	if err := direct.Create(ctx, source); err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(source)
	holds := func(value string) error {
		return eventually(ctx, fmt.Sprintf("no secret %s with %q by %s", name, value, leader), func() (bool, error) {
			secret := &corev1.Secret{}
			err := direct.Get(ctx, key, secret)
			return string(secret.Data["value"]) == value && string(secret.Data["by"]) == leader, client.IgnoreNotFound(err)
		})
	}
	if err := holds("a"); err != nil {
		return err
	}
	patch := client.MergeFrom(source.DeepCopy())
	source.Data["value"] = "b"
	if err := direct.Patch(ctx, source, patch); err != nil {
		return err
	}
	if err := holds("b"); err != nil {
		return err
	}
	if err := direct.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}); err != nil {
		return err
	}
	if err := holds("b"); err != nil {
		return err
	}
	if err := direct.Delete(ctx, source); err != nil {
		return err
	}
	return eventually(ctx, "the secret outlived its owner", func() (bool, error) {
		err := direct.Get(ctx, key, &corev1.Secret{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

func eventually(ctx context.Context, otherwise string, done func() (bool, error)) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true,
		func(context.Context) (bool, error) { return done() })
	if err != nil {
		return fmt.Errorf("%s: %w", otherwise, err)
	}
	return nil
}
