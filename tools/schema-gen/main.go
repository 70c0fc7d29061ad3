// Command schema-gen prints facts about the Kubernetes API's Go types.
//
//	schema-gen table    the schema table that crates/schema commits
//	schema-gen sparse   objects with one field set at a time, as JSON and protobuf, for the byte-for-byte tests
//	schema-gen wrong    values of wrong types, and what upstream's decoder says to them
//	schema-gen patches  strategic merge patches with their results
//	schema-gen fixtures the directory of upstream's round-trip fixtures
//	schema-gen openapi  the directory of upstream's OpenAPI v3 documents
package main

import (
	"bufio"
	"encoding/json"
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
	case "wrong":
		writeWrong(out)
	case "patches":
		writePatches(out)
	case "openapi":
		// Not among the requirements: only these documents are wanted of it.
		text, err := exec.Command("go", "mod", "download", "-json", "k8s.io/kubernetes@v1.37.2").Output()
		check(err)
		var module struct{ Dir string }
		check(json.Unmarshal(text, &module))
		fmt.Fprintln(out, filepath.Join(module.Dir, "api", "openapi-spec", "v3"))
	default:
		fmt.Fprintln(os.Stderr, "usage: schema-gen table|sparse|wrong|patches|fixtures|openapi")
		os.Exit(2)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "schema-gen:", err)
		os.Exit(1)
	}
}
