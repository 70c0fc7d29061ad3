// A controller of client-go alone, against the cluster of KUBECONFIG: a dynamic informer of its own kind, a typed one of ConfigMaps with
// protobuf, a work queue. For each InformerBundle it keeps spec.copies ConfigMaps with spec.value, says so in the status, and leaves a
// note when the bundle goes. `cargo xtask clients` checks it from outside. The argument is the name that it writes under.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const (
	protobuf  = "application/vnd.kubernetes.protobuf"
	finalizer = "clients.corten.dev/guard"
	owned     = "clients.corten.dev/bundle"
	writer    = "clients.corten.dev/by"
)

var bundles = schema.GroupVersionResource{Group: "clients.corten.dev", Version: "v1", Resource: "informerbundles"}

type controller struct {
	name    string
	dynamic dynamic.Interface
	typed   kubernetes.Interface
	bundles cache.GenericLister
	maps    listers.ConfigMapLister
	queue   workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

func run() error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = protobuf, protobuf
	typed, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return err
	}
	own := dynamicinformer.NewDynamicSharedInformerFactory(dynamicClient, 0)
	core := informers.NewSharedInformerFactoryWithOptions(typed, 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = owned }))
	c := &controller{
		name: os.Args[1], dynamic: dynamicClient, typed: typed,
		bundles: own.ForResource(bundles).Lister(), maps: core.Core().V1().ConfigMaps().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()),
	}
	informers := []cache.SharedIndexInformer{own.ForResource(bundles).Informer(), core.Core().V1().ConfigMaps().Informer()}
	for i, key := range []func(metav1.Object) string{
		func(object metav1.Object) string { return object.GetName() },
		func(object metav1.Object) string { return object.GetLabels()[owned] },
	} {
		enqueue := func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			of := object.(metav1.Object)
			c.queue.Add(cache.ObjectName{Namespace: of.GetNamespace(), Name: key(of)})
		}
		_, err := informers[i].AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }, DeleteFunc: enqueue,
		})
		if err != nil {
			return err
		}
	}
	own.Start(ctx.Done())
	core.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informers[0].HasSynced, informers[1].HasSynced) {
		return fmt.Errorf("the informers did not sync")
	}
	go func() { <-ctx.Done(); c.queue.ShutDown() }()
	for c.next(ctx) {
	}
	return nil
}

func (c *controller) next(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	if err := c.reconcile(ctx, key); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", key, err)
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

func (c *controller) reconcile(ctx context.Context, key cache.ObjectName) error {
	found, err := c.bundles.ByNamespace(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	bundle := found.(*unstructured.Unstructured).DeepCopy()
	of := c.dynamic.Resource(bundles).Namespace(key.Namespace)
	guarded := slices.Contains(bundle.GetFinalizers(), finalizer)
	if bundle.GetDeletionTimestamp() != nil {
		if !guarded {
			return nil
		}
		note := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: key.Name + "-goodbye"}, Data: map[string]string{"value": "cleaned up"},
		}
		_, err := c.typed.CoreV1().ConfigMaps(key.Namespace).Create(ctx, note, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		bundle.SetFinalizers(slices.DeleteFunc(bundle.GetFinalizers(), func(f string) bool { return f == finalizer }))
		_, err = of.Update(ctx, bundle, metav1.UpdateOptions{})
		return err
	}
	if !guarded {
		bundle.SetFinalizers(append(bundle.GetFinalizers(), finalizer))
		if bundle, err = of.Update(ctx, bundle, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	copies, _, _ := unstructured.NestedInt64(bundle.Object, "spec", "copies")
	if err := c.keepMaps(ctx, bundle, int(copies)); err != nil {
		return err
	}
	status := map[string]any{"copies": copies, "observedGeneration": bundle.GetGeneration()}
	if now, _, _ := unstructured.NestedMap(bundle.Object, "status"); fmt.Sprint(now) == fmt.Sprint(status) {
		return nil
	}
	bundle.Object["status"] = status
	_, err = of.UpdateStatus(ctx, bundle, metav1.UpdateOptions{})
	return err
}

// keepMaps makes, changes and removes ConfigMaps until there are as many as wanted.
func (c *controller) keepMaps(ctx context.Context, bundle *unstructured.Unstructured, copies int) error {
	value, _, _ := unstructured.NestedString(bundle.Object, "spec", "value")
	maps := c.typed.CoreV1().ConfigMaps(bundle.GetNamespace())
	owner := metav1.NewControllerRef(bundle, bundle.GroupVersionKind())
	for i := range copies {
		wanted := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("%s-%d", bundle.GetName(), i), Labels: map[string]string{owned: bundle.GetName()},
				Annotations: map[string]string{writer: c.name}, OwnerReferences: []metav1.OwnerReference{*owner},
			},
			Data: map[string]string{"value": value},
		}
		now, err := c.maps.ConfigMaps(bundle.GetNamespace()).Get(wanted.Name)
		switch {
		case apierrors.IsNotFound(err):
			if _, err := maps.Create(ctx, wanted, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		case err != nil:
			return err
		case now.Data["value"] != value:
			changed := now.DeepCopy()
			changed.Data, changed.Annotations = wanted.Data, wanted.Annotations
			if _, err := maps.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
	}
	all, err := c.maps.ConfigMaps(bundle.GetNamespace()).List(labels.SelectorFromSet(labels.Set{owned: bundle.GetName()}))
	if err != nil {
		return err
	}
	for _, one := range all {
		number, err := strconv.Atoi(strings.TrimPrefix(one.Name, bundle.GetName()+"-"))
		if err == nil && number < copies {
			continue
		}
		if err := maps.Delete(ctx, one.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
