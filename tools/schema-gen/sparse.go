package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// writeSparse prints, for every struct and each of its fields alone: the type, its JSON, the protobuf in hex of what that
// JSON gives back, and the JSON of what that protobuf gives back, separated by tabs. The last two are `-` for types without
// a protobuf form. TypeMeta stays empty: protobuf has it in the envelope only.
func writeSparse(out io.Writer) {
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
		printInstance(out, name, reflect.New(t))
		for i := range t.NumField() {
			if !varied(t.Field(i)) {
				continue
			}
			for _, value := range variants(t.Field(i).Type, 2) {
				instance := reflect.New(t)
				instance.Elem().Field(i).Set(value)
				printInstance(out, name, instance)
			}
		}
	}
}

func printInstance(out io.Writer, name string, instance reflect.Value) {
	encoded, back := "-", "-"
	text := toJSON(instance.Interface())
	read := reflect.New(instance.Type().Elem())
	check(json.Unmarshal([]byte(text), read.Interface()))
	if m, ok := read.Interface().(message); ok {
		raw, err := m.Marshal()
		check(err)
		again := reflect.New(instance.Type().Elem())
		check(again.Interface().(message).Unmarshal(raw))
		encoded, back = "0x"+hex.EncodeToString(raw), toJSON(again.Interface())
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", name, text, encoded, back)
}

func toJSON(value any) string {
	var buffer bytes.Buffer
	check(json.NewEncoder(&buffer).Encode(value))
	return strings.TrimSpace(buffer.String())
}

const oddText = "a<b>&\u2028é\"\\\n\x01😀"

func values(items ...any) []reflect.Value {
	var found []reflect.Value
	for _, item := range items {
		found = append(found, reflect.ValueOf(item))
	}
	return found
}

// specialVariants are values of the types with a form of their own.
func specialVariants(t reflect.Type) []reflect.Value {
	moment := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	one := apiextensions.JSONSchemaProps{Type: "string", Minimum: new(float64)}
	var fields meta.FieldsV1
	fields.SetRawBytes([]byte(`{"f:spec":{".":{},"f:a":{}}}`))
	switch t {
	case reflect.TypeFor[meta.Time]():
		return values(meta.Time{}, meta.NewTime(moment.Truncate(time.Second)), meta.Unix(-1, 0))
	case reflect.TypeFor[meta.MicroTime]():
		return values(meta.MicroTime{}, meta.NewMicroTime(moment), meta.NewMicroTime(moment.Truncate(time.Second)))
	case reflect.TypeFor[meta.Duration]():
		return values(meta.Duration{}, meta.Duration{Duration: 90 * time.Second}, meta.Duration{Duration: -1500 * time.Millisecond})
	case reflect.TypeFor[meta.FieldsV1]():
		return values(fields)
	case reflect.TypeFor[resource.Quantity]():
		all := values(resource.Quantity{})
		for _, text := range []string{"0", "1.5", "1000", "1024Mi", "1e3", "0.1Ki", "-5", "1.500", "100n", "12345678901234567890", "0.5Gi", "1Ei", "5E"} {
			all = append(all, reflect.ValueOf(resource.MustParse(text)))
		}
		return all
	case reflect.TypeFor[intstr.IntOrString]():
		return values(intstr.IntOrString{}, intstr.FromInt32(8080), intstr.FromInt32(-1), intstr.FromString(""), intstr.FromString("25%"))
	case reflect.TypeFor[runtime.RawExtension]():
		return values(runtime.RawExtension{}, runtime.RawExtension{Raw: []byte(`{"z":[1,"x",null,1.5],"a":{}}`)})
	case reflect.TypeFor[apiextensions.JSON]():
		return values(apiextensions.JSON{}, apiextensions.JSON{Raw: []byte(`[1,{"b":"x"},"y"]`)}, apiextensions.JSON{Raw: []byte(`"a"`)})
	case reflect.TypeFor[apiextensions.JSONSchemaPropsOrBool]():
		return values(apiextensions.JSONSchemaPropsOrBool{}, apiextensions.JSONSchemaPropsOrBool{Allows: true}, apiextensions.JSONSchemaPropsOrBool{Allows: true, Schema: &one})
	case reflect.TypeFor[apiextensions.JSONSchemaPropsOrArray]():
		return values(apiextensions.JSONSchemaPropsOrArray{Schema: &one}, apiextensions.JSONSchemaPropsOrArray{JSONSchemas: []apiextensions.JSONSchemaProps{one, {}}})
	case reflect.TypeFor[apiextensions.JSONSchemaPropsOrStringArray]():
		return values(apiextensions.JSONSchemaPropsOrStringArray{Schema: &one}, apiextensions.JSONSchemaPropsOrStringArray{Property: []string{"a", ""}})
	}
	return nil
}

// variants are the values that a field is tried with: zero but present, and some others.
func variants(t reflect.Type, depth int) []reflect.Value {
	if special := specialVariants(t); special != nil {
		return special
	}
	all := []reflect.Value{reflect.Zero(t)}
	add := func(value any) { all = append(all, reflect.ValueOf(value).Convert(t)) }
	switch t.Kind() {
	case reflect.String:
		add("a")
		add(oddText)
	case reflect.Bool:
		add(true)
	case reflect.Int, reflect.Int32:
		add(int32(1))
		add(int32(-2147483648))
	case reflect.Int64:
		add(int64(300))
		add(int64(-1 << 63))
	case reflect.Float64:
		add(1.5)
		add(1e21)
		add(-0.0000001)
		add(100.0)
	case reflect.Interface:
		return append(all, reflect.ValueOf("cell"), reflect.ValueOf(int64(5)))
	case reflect.Pointer:
		for _, inner := range variants(t.Elem(), depth) {
			// JSON's null cannot tell a pointer to nothing from no pointer.
			if toJSON(inner.Interface()) == "null" {
				continue
			}
			pointer := reflect.New(t.Elem())
			pointer.Elem().Set(inner)
			all = append(all, pointer)
		}
	case reflect.Slice:
		all = append(all, reflect.MakeSlice(t, 0, 0))
		if t.Elem().Kind() == reflect.Uint8 {
			return append(all, reflect.ValueOf([]byte("hi\xff")).Convert(t))
		}
		for _, inner := range variants(t.Elem(), depth) {
			all = append(all, reflect.Append(reflect.MakeSlice(t, 0, 2), inner, reflect.Zero(t.Elem())))
		}
	case reflect.Map:
		all = append(all, reflect.MakeMap(t))
		for _, inner := range variants(t.Elem(), depth) {
			m := reflect.MakeMap(t)
			for _, key := range []string{"z/y", "a", oddText} {
				m.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), inner)
			}
			all = append(all, m)
		}
	case reflect.Struct:
		if depth > 0 {
			all = append(all, filled(t, depth-1))
		}
	}
	return all
}

func varied(field reflect.StructField) bool {
	skipped := strings.Split(field.Tag.Get("json"), ",")[0] == "-" || field.Type == reflect.TypeFor[meta.TypeMeta]()
	return field.IsExported() && !skipped
}

// filled is a struct with the last variant of each field.
func filled(t reflect.Type, depth int) reflect.Value {
	value := reflect.New(t).Elem()
	for i := range t.NumField() {
		if varied(t.Field(i)) {
			all := variants(t.Field(i).Type, depth)
			value.Field(i).Set(all[len(all)-1])
		}
	}
	return value
}
