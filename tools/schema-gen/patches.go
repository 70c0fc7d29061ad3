package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

type object = map[string]any

// patcher makes pods and strategic merge patches at random, but always the same ones.
type patcher struct{ *rand.Rand }

func (p patcher) some(names string) []string {
	var chosen []string
	for _, i := range p.Perm(len(names)) {
		if p.Intn(3) > 0 {
			chosen = append(chosen, names[i:i+1])
		}
	}
	return chosen
}

func (p patcher) texts(names string) object {
	found := object{}
	for _, name := range p.some(names) {
		found[name] = fmt.Sprint(p.Intn(3))
	}
	return found
}

func (p patcher) list(names, key string, fill func(object)) []any {
	found := []any{}
	for _, name := range p.some(names) {
		item := object{key: name}
		fill(item)
		found = append(found, item)
	}
	return found
}

func (p patcher) scalars(names string) []any {
	found := []any{}
	for _, name := range p.some(names) {
		found = append(found, name)
	}
	return found
}

func (p patcher) pod() object {
	return object{
		"metadata": object{"labels": p.texts("abcd"), "finalizers": p.scalars("pqrs")},
		"spec": object{
			"nodeSelector": p.texts("xyz"),
			"tolerations":  p.list("tu", "key", func(o object) { o["operator"] = "Exists" }),
			"containers": p.list("abcde", "name", func(o object) {
				o["image"] = fmt.Sprint(p.Intn(2))
				o["args"] = p.scalars("fgh")
				o["env"] = p.list("jkl", "name", func(o object) { o["value"] = fmt.Sprint(p.Intn(2)) })
				if p.Intn(2) == 0 {
					o["securityContext"] = object{"privileged": p.Intn(2) == 0, "runAsUser": int64(p.Intn(3))}
				}
			}),
			"volumes": p.list("vw", "name", func(o object) {
				if p.Intn(2) == 0 {
					o["emptyDir"] = object{}
				} else {
					o["hostPath"] = object{"path": "/" + fmt.Sprint(p.Intn(2))}
				}
			}),
		},
	}
}

// spoil puts directives and nulls into a patch.
func (p patcher) spoil(value any) {
	switch value := value.(type) {
	case object:
		var keys []string
		for key := range value {
			keys = append(keys, key)
		}
		for _, key := range sorted(keys) {
			switch p.Intn(12) {
			case 0:
				value[key] = nil
			case 1:
				if items, ok := value[key].([]any); ok && len(items) > 0 {
					if _, ok := items[0].(string); ok {
						value["$deleteFromPrimitiveList/"+key] = items[:1]
						value[key] = items[1:]
					} else {
						value[key] = append(items, object{"$patch": []string{"replace", "delete", "merge"}[p.Intn(3)]})
					}
				}
			default:
				p.spoil(value[key])
			}
		}
		switch p.Intn(25) {
		case 0:
			value["$patch"] = "replace"
		case 1:
			value["$patch"] = "delete"
		case 2:
			value["$retainKeys"] = []any{"name", "image", "emptyDir", "hostPath", "labels", "containers"}
		}
	case []any:
		for _, item := range value {
			p.spoil(item)
		}
	}
}

func sorted(keys []string) []string {
	for i := range keys {
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

func copyOf(value object) object {
	var again object
	check(json.Unmarshal([]byte(toJSON(value)), &again))
	return again
}

// writePatches prints an object, a strategic merge patch, and upstream's result or `E` and its error, separated by tabs.
func writePatches(out io.Writer) {
	p := patcher{rand.New(rand.NewSource(1))}
	for i := range 6000 {
		original, modified, live := p.pod(), p.pod(), p.pod()
		text, err := strategicpatch.CreateTwoWayMergePatch([]byte(toJSON(original)), []byte(toJSON(modified)), core.Pod{})
		check(err)
		var patch object
		check(json.Unmarshal(text, &patch))
		if i%2 == 0 {
			live = copyOf(original)
		}
		if i%3 == 0 {
			patch = copyOf(p.pod())
		}
		if i%3 != 1 {
			p.spoil(patch)
		}
		line := toJSON(live) + "\t" + toJSON(patch)
		result, err := strategicpatch.StrategicMergeMapPatch(copyOf(live), copyOf(patch), core.Pod{})
		if err != nil {
			fmt.Fprintf(out, "%s\tE\t%q\n", line, err)
		} else {
			fmt.Fprintf(out, "%s\t%s\t\n", line, toJSON(result))
		}
	}
}
