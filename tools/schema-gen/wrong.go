package main

import (
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	kjson "sigs.k8s.io/json"
)

// Values that fit few fields.
var wrongValues = []string{
	`"x"`, `1`, `1.5`, `-1`, `3000000000`, `9223372036854775808`, `1e3`, `true`, `null`, `[]`, `{}`, `["x"]`, `[1]`, `[{}]`, `[null]`,
	`{"a":1}`, `{"a":"x"}`, `{"a":{}}`, `{"a":null}`, `"2026-01-02T03:04:05Z"`, `"2026-13-02T03:04:05Z"`, `"1Gi"`, `"aGk="`, `"90s"`,
	`{"zzz":1}`, `[{"zzz":1,"yyy":2}]`, `{"a":"1","a":"2"}`,
}

// writeWrong prints, for each field of each struct with each of these values: the type, the JSON, and what upstream's strict
// decoder says: `E` and the error, or the JSON of the result and the strict errors, separated by tabs.
func writeWrong(out io.Writer) {
	tab := &table{map[reflect.Type]bool{}, map[string]reflect.Type{}, map[string][]string{}}
	for gvk, t := range newScheme().AllKnownTypes() {
		if gvk.Version != "__internal" {
			tab.walk(t)
		}
	}
	var names []string
	for name := range tab.names {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t := tab.names[name]
		printDecoded(out, name, t, `[]`)
		printDecoded(out, name, t, `{"zzz":1,"zzz":2}`)
		for _, line := range tab.lines[name][1:] {
			field := strings.SplitN(line, " ", 2)[0]
			if strings.HasPrefix(field, "~") {
				continue
			}
			for _, value := range wrongValues {
				printDecoded(out, name, t, fmt.Sprintf(`{%q:%s}`, field, value))
			}
		}
	}
}

func printDecoded(out io.Writer, name string, t reflect.Type, text string) {
	instance := reflect.New(t)
	strict, err := kjson.UnmarshalStrict([]byte(text), instance.Interface())
	if err != nil {
		fmt.Fprintf(out, "%s\t%s\tE\t%s\n", name, text, err)
		return
	}
	var told []string
	for _, err := range strict {
		told = append(told, err.Error())
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", name, text, toJSON(instance.Interface()), strings.Join(told, ", "))
}
