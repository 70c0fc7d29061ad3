//go:build tools

// Package conformance pins what `cargo xtask conformance` builds: upstream's end-to-end suite, the programs of its test images, and
// the runner that spreads the suite over several processes.
package conformance

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
	_ "k8s.io/kubernetes/test/images/nonewprivs"
	_ "k8s.io/sample-apiserver"
)
