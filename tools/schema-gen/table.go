package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
)

// The types whose JSON form is not their fields.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "fieldsv1",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "intorstring",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "json",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "schemaorbool",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "schemaorarray",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "schemaorstrings",
}

// Kinds that every group version has; the table names them for v1 only.
var everywhere = map[string]bool{
	"CreateOptions": true, "DeleteOptions": true, "GetOptions": true, "ListOptions": true, "PatchOptions": true,
	"UpdateOptions": true, "WatchEvent": true,
}

type marshaler interface{ Marshal() ([]byte, error) }

var marshalerType = reflect.TypeFor[marshaler]()

type table struct {
	done  map[reflect.Type]bool
	names map[string]reflect.Type
	lines map[string][]string
}

// shortName is unique among the API's types: the last two parts of the package's path and the type's name.
func shortName(t reflect.Type) string {
	parts := strings.Split(t.PkgPath(), "/")
	return strings.Join(parts[max(0, len(parts)-2):], ".") + "." + t.Name()
}

func fullName(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

// typeText is the table's notation: `*T` pointer, `[]T` list, `{}T` map, `Go=T` a named type that is not a struct.
func (tab *table) typeText(t reflect.Type) string {
	if name, ok := special[fullName(t)]; ok && t.Name() != "" {
		return name
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + tab.typeText(t.Elem())
	case reflect.Struct:
		tab.walk(t)
		return shortName(t)
	case reflect.Interface:
		return "any"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		if reflect.PointerTo(t).Implements(marshalerType) {
			return t.String() + "=strings"
		}
	}
	text, plain := "", ""
	switch t.Kind() {
	case reflect.Slice:
		text, plain = "[]"+tab.typeText(t.Elem()), "[]"+t.Elem().String()
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			check(fmt.Errorf("map key of %s", t))
		}
		text, plain = "{}"+tab.typeText(t.Elem()), "map[string]"+t.Elem().String()
	case reflect.Int:
		text, plain = "int64", "int64"
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64, reflect.Float64:
		text, plain = t.Kind().String(), t.Kind().String()
	default:
		check(fmt.Errorf("no notation for %s", t))
	}
	if t.String() != plain {
		return t.String() + "=" + text
	}
	return text
}

func (tab *table) walk(t reflect.Type) {
	if tab.done[t] {
		return
	}
	tab.done[t] = true
	name := shortName(t)
	if other, ok := tab.names[name]; ok && other != t {
		check(fmt.Errorf("two types are called %s", name))
	}
	tab.names[name] = t
	facts := source(t.PkgPath())
	head := ":" + name
	head += mapType(facts.types[t.Name()].first("structType"))
	lines := []string{head}
	for i := range t.NumField() {
		if line := tab.field(t, t.Field(i), facts); line != "" {
			lines = append(lines, line)
		}
	}
	tab.lines[name] = lines
}

// field is one line: name, protobuf number, type, and what its tags and markers say.
func (tab *table) field(owner reflect.Type, f reflect.StructField, facts *sourceFacts) string {
	tag := strings.Split(f.Tag.Get("json"), ",")
	if tag[0] == "-" || (!f.IsExported() && !f.Anonymous) {
		return ""
	}
	number := 0
	if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 1 {
		n, err := strconv.Atoi(parts[1])
		check(err)
		number = n
	}
	name := tag[0]
	inline := name == "" && f.Type.Kind() == reflect.Struct && (f.Anonymous || has(tag, "inline"))
	if inline {
		name = "~" + f.Name
	} else if name == "" {
		fmt.Fprintln(os.Stderr, "note: no JSON name:", owner, f.Name)
		name = f.Name
	}
	m := facts.fields[owner.Name()][f.Name]
	line := fmt.Sprintf("%s %d %s", name, number, tab.typeText(f.Type))
	if inline {
		return line
	}
	if has(tag, "omitempty") {
		line += " oe"
	}
	if has(tag, "omitzero") {
		line += " oz"
	}
	if m.has("required") || (!m.has("optional") && !has(tag, "omitempty")) {
		line += " rq"
	}
	line += pair("ps", f.Tag.Get("patchStrategy")) + pair("pk", f.Tag.Get("patchMergeKey"))
	line += pair("lt", m.first("listType")) + pair("lk", strings.Join(m["listMapKey"], ","))
	line += mapType(m.first("mapType") + m.first("structType") + tab.mapMarker(f.Type))
	line += pair("dv", strings.Join(tab.rulesOf(owner, f, facts), ";"))
	line += pair("df", defaultOf(m, facts))
	// Last, as its values may hold blanks.
	line += pair("en", strings.Join(enumOf(f.Type), "|"))
	return line
}

// rulesOf are the declared validation rules of a field, and of its type if that is a text.
func (tab *table) rulesOf(owner reflect.Type, f reflect.StructField, facts *sourceFacts) []string {
	rules := facts.rules[owner.Name()][f.Name]
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.String && t.PkgPath() != "" {
		for _, rule := range source(t.PkgPath()).rules[t.Name()][""] {
			if rule == "enum" {
				values := append([]string{}, source(t.PkgPath()).enums[t.Name()]...)
				if len(values) == 0 {
					continue // They are no literals; the kind's own rules have them.
				}
				sort.Strings(values)
				rule += "=" + strings.Join(values, "|")
			}
			rules = append(append([]string{}, rules...), rule)
		}
	}
	return rules
}

// defaultOf is the `+default` marker as JSON, with references to constants resolved.
func defaultOf(m markers, facts *sourceFacts) string {
	text := strings.ReplaceAll(m.first("default"), " ", "")
	if name, ok := strings.CutPrefix(text, "ref("); ok {
		return strconv.Quote(facts.consts[strings.TrimSuffix(name, ")")])
	}
	return text
}

// mapMarker is the `+mapType` of a named map type.
func (tab *table) mapMarker(t reflect.Type) string {
	if t.Kind() != reflect.Map || t.PkgPath() == "" {
		return ""
	}
	return source(t.PkgPath()).types[t.Name()].first("mapType")
}

func mapType(value string) string {
	switch value {
	case "":
		return ""
	case "atomic":
		return " at"
	case "granular":
		return " gr"
	}
	check(fmt.Errorf("map type %q", value))
	return ""
}

// enumOf is the values of a string type marked `+enum`, also as a list's items.
func enumOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.String || t.PkgPath() == "" {
		return nil
	}
	facts := source(t.PkgPath())
	if !facts.types[t.Name()].has("enum") {
		return nil
	}
	values := append([]string{}, facts.enums[t.Name()]...)
	sort.Strings(values)
	return values
}

func pair(name, value string) string {
	if value == "" {
		return ""
	}
	return " " + name + "=" + value
}

func has(list []string, item string) bool {
	for _, each := range list {
		if each == item {
			return true
		}
	}
	return false
}

func writeTable(out io.Writer) {
	tab := &table{map[reflect.Type]bool{}, map[string]reflect.Type{}, map[string][]string{}}
	var gvks []string
	for gvk, t := range newScheme().AllKnownTypes() {
		if gvk.Version == "__internal" || (everywhere[gvk.Kind] && (gvk.Group != "" || gvk.Version != "v1")) {
			continue
		}
		tab.walk(t)
		group := gvk.Group
		if group == "" {
			group = "-"
		}
		gvks = append(gvks, fmt.Sprintf("@%s %s %s %s", group, gvk.Version, gvk.Kind, shortName(t)))
	}
	sort.Strings(gvks)
	fmt.Fprintln(out, "# Generated by `cargo xtask schema` from", strings.Join(versions(), ", ")+". Do not edit.")
	fmt.Fprintln(out, "# Facts only; the notation is explained in crates/schema/src/table.rs.")
	for _, line := range gvks {
		fmt.Fprintln(out, line)
	}
	var names []string
	for name := range tab.lines {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintln(out, strings.Join(tab.lines[name], "\n"))
	}
}

func versions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		check(fmt.Errorf("no build information"))
	}
	var found []string
	for _, dep := range info.Deps {
		switch dep.Path {
		case "k8s.io/api", "k8s.io/apimachinery", "k8s.io/apiextensions-apiserver", "k8s.io/kube-aggregator", "k8s.io/metrics":
			found = append(found, dep.Path+" "+dep.Version)
		}
	}
	return found
}
