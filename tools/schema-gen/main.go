// Command schema-gen prints facts about the Kubernetes API's Go types.
//
//	schema-gen table    the schema table that crates/schema commits
//	schema-gen sparse   objects with one field set at a time, as JSON and protobuf, for the byte-for-byte tests
//	schema-gen fixtures the directory of upstream's round-trip fixtures
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()
	switch mode {
	case "table":
		writeTable(out)
	case "sparse":
		writeSparse(out)
	case "fixtures":
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
		check(err)
		fmt.Fprintln(out, filepath.Join(strings.TrimSpace(string(dir)), "testdata", "HEAD"))
	default:
		fmt.Fprintln(os.Stderr, "usage: schema-gen table|sparse|fixtures")
		os.Exit(2)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "schema-gen:", err)
		os.Exit(1)
	}
}
