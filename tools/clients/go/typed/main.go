// A typed client of client-go with protobuf bodies and shared informers, against the cluster of KUBECONFIG. It ends with 0 if the
// server does what such a client relies on.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// seen counts content types that went over the wire.
type seen struct {
	mutex            sync.Mutex
	sent, got, other int
}

func (s *seen) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err != nil {
			return response, err
		}
		s.mutex.Lock()
		defer s.mutex.Unlock()
		if strings.HasPrefix(request.Header.Get("Content-Type"), protobuf) {
			s.sent++
		}
		if strings.HasPrefix(response.Header.Get("Content-Type"), protobuf) {
			s.got++
		} else {
			s.other++
		}
		return response, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "typed:", err)
		os.Exit(1)
	}
	fmt.Println("typed: ok")
}

func run() error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	counts := &seen{}
	config.ContentType, config.AcceptContentTypes = protobuf, protobuf
	config.QPS, config.Burst = 200, 400
	config.Wrap(counts.wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	namespace, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "typed-"},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	name := namespace.Name
	defer client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
	steps := []struct {
		name string
		step func(context.Context, *kubernetes.Clientset, string) error
	}{
		{"informers", informersSeeChanges}, {"conflicts", conflicts}, {"pages", pages}, {"patches", patches},
		{"deployment", deployment}, {"errors", errorsAreTyped}, {"discovery", discovery},
	}
	for _, one := range steps {
		if err := one.step(ctx, client, name); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Println("typed:", one.name)
	}
	counts.mutex.Lock()
	defer counts.mutex.Unlock()
	// Discovery alone has no protobuf form.
	if counts.sent < 10 || counts.got < 10 {
		return fmt.Errorf("protobuf bodies: %d sent, %d got, %d of other types", counts.sent, counts.got, counts.other)
	}
	return nil
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"client": "typed"}},
		Data:       map[string]string{"key": value},
	}
}

// An informer's handlers see an object come, change and go, and its lister agrees.
func informersSeeChanges(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps()
	events := make(chan string, 64)
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { events <- "add " + object.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, object any) { events <- "update " + object.(*corev1.ConfigMap).Data["key"] },
		DeleteFunc: func(object any) { events <- "delete " + object.(*corev1.ConfigMap).Name },
	})
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer func() { stop(); factory.Shutdown() }()
	factory.Start(watching.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return fmt.Errorf("the informer did not sync")
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("watched", "one"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data["key"] = "two"
	if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := expect(ctx, events, "add watched", "update two"); err != nil {
		return err
	}
	if found, err := informer.Lister().ConfigMaps(namespace).Get("watched"); err != nil || found.Data["key"] != "two" {
		return fmt.Errorf("the lister has %v, %v", found, err)
	}
	if err := maps.Delete(ctx, "watched", metav1.DeleteOptions{}); err != nil {
		return err
	}
	return expect(ctx, events, "delete watched")
}

// expect waits for the events in order; others (the root CA's config map comes by itself) may stand between.
func expect(ctx context.Context, events <-chan string, wanted ...string) error {
	for _, one := range wanted {
		for got := ""; got != one; {
			select {
			case got = <-events:
			case <-ctx.Done():
				return fmt.Errorf("no event %q", one)
			}
		}
	}
	return nil
}

// Many writers of one object: everyone's write lands once.
func conflicts(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(ctx, configMap("shared", ""), metav1.CreateOptions{}); err != nil {
		return err
	}
	const writers = 8
	results := make(chan error, writers)
	for range writers {
		go func() {
			results <- retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
				return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
					now, err := maps.Get(ctx, "shared", metav1.GetOptions{})
					if err != nil {
						return err
					}
					now.Data["key"] += "x"
					_, err = maps.Update(ctx, now, metav1.UpdateOptions{})
					return err
				})
			})
		}()
	}
	for range writers {
		if err := <-results; err != nil {
			return err
		}
	}
	now, err := maps.Get(ctx, "shared", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if now.Data["key"] != strings.Repeat("x", writers) {
		return fmt.Errorf("%d writers left %q", writers, now.Data["key"])
	}
	return nil
}

// A list in pages is complete, and of one revision.
func pages(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	const total = 25
	for i := range total {
		one := configMap(fmt.Sprintf("page-%02d", i), "p")
		one.Labels["page"] = "yes"
		if _, err := maps.Create(ctx, one, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	lister := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return maps.List(ctx, options)
	})
	lister.PageSize = 7
	count := 0
	err := lister.EachListItem(ctx, metav1.ListOptions{LabelSelector: "page=yes"}, func(runtime.Object) error {
		count++
		return nil
	})
	if err != nil || count != total {
		return fmt.Errorf("%d items in pages: %w", count, err)
	}
	err = maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "page=yes"})
	if err != nil {
		return err
	}
	left, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "page=yes"})
	if err != nil || len(left.Items) != 0 {
		return fmt.Errorf("%d items left: %w", len(left.Items), err)
	}
	return nil
}

func patches(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(ctx, configMap("patched", "one"), metav1.CreateOptions{}); err != nil {
		return err
	}
	for kind, body := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/data/json","value":"x"}]`,
		types.MergePatchType:          `{"data":{"merge":"x"}}`,
		types.StrategicMergePatchType: `{"data":{"strategic":"x"}}`,
	} {
		if _, err := maps.Patch(ctx, "patched", kind, []byte(body), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	wanted := applycorev1.ConfigMap("patched", namespace).WithData(map[string]string{"applied": "x"})
	now, err := maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: "typed"})
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for _, key := range []string{"key", "json", "merge", "strategic", "applied"} {
		if now.Data[key] == "" {
			return fmt.Errorf("after all patches there is no %q: %v", key, now.Data)
		}
	}
	// What another manager owns is a conflict, unless it is forced.
	wanted = applycorev1.ConfigMap("patched", namespace).WithData(map[string]string{"key": "two"})
	if _, err = maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: "typed"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("applying another manager's field gave %v", err)
	}
	_, err = maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: "typed", Force: true})
	return err
}

func deployment(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	replicas := int32(2)
	labels := map[string]string{"app": "typed"}
	deployments := client.AppsV1().Deployments(namespace)
	_, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "typed"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "web", Image: "corten.dev/web:v1", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
				}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	watch, err := deployments.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=typed"})
	if err != nil {
		return err
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		if now, ok := event.Object.(*appsv1.Deployment); ok && now.Status.AvailableReplicas == replicas {
			scale, err := deployments.GetScale(ctx, "typed", metav1.GetOptions{})
			if err != nil || scale.Spec.Replicas != replicas {
				return fmt.Errorf("the scale is %v: %w", scale, err)
			}
			return nil
		}
	}
	return fmt.Errorf("the deployment did not become available")
}

func errorsAreTyped(ctx context.Context, client *kubernetes.Clientset, namespace string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Get(ctx, "absent", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("an absent object gives %v", err)
	}
	if _, err := maps.Create(ctx, configMap("shared", ""), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("an object that exists gives %v", err)
	}
	if _, err := maps.Create(ctx, configMap("Bad Name", ""), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		return fmt.Errorf("a bad name gives %v", err)
	}
	anonymous := rest.AnonymousClientConfig(mustConfig())
	stranger, err := kubernetes.NewForConfig(anonymous)
	if err != nil {
		return err
	}
	_, err = stranger.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
		return fmt.Errorf("a stranger gets %v", err)
	}
	return nil
}

func mustConfig() *rest.Config {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		panic(err)
	}
	return config
}

func discovery(_ context.Context, client *kubernetes.Clientset, _ string) error {
	groups, resources, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	if len(groups) < 15 || len(resources) < 20 {
		return fmt.Errorf("%d groups, %d resource lists", len(groups), len(resources))
	}
	if _, err := client.Discovery().OpenAPISchema(); err != nil {
		return fmt.Errorf("OpenAPI v2: %w", err)
	}
	paths, err := client.Discovery().OpenAPIV3().Paths()
	if err != nil || len(paths) < 15 {
		return fmt.Errorf("OpenAPI v3 has %d paths: %w", len(paths), err)
	}
	return nil
}
