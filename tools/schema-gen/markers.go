package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// markers are the `+name=value` lines of one comment.
type markers map[string][]string

func (m markers) first(name string) string {
	if values := m[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (m markers) has(name string) bool {
	_, ok := m[name]
	return ok
}

func parseMarkers(doc *ast.CommentGroup) markers {
	found := markers{}
	if doc == nil {
		return found
	}
	for _, comment := range doc.List {
		line := strings.TrimSpace(strings.TrimPrefix(comment.Text, "//"))
		if !strings.HasPrefix(line, "+") {
			continue
		}
		name, value, _ := strings.Cut(line[1:], "=")
		found[name] = append(found[name], strings.TrimSpace(value))
	}
	return found
}

// off are the feature gates that are off by default: their rules are those of a field that nobody may set.
var off = map[string]bool{
	"DRAPartitionableDevicesType": true, "InPlacePodVerticalScalingSchedulerPreemption": true, "WorkloadWithJob": true,
}

// declaredRules are the validation rules in a comment that the server enforces, in order: those of stable and beta fields.
func declaredRules(doc *ast.CommentGroup) []string {
	var found []string
	if doc == nil {
		return found
	}
	for _, comment := range doc.List {
		line := strings.TrimSpace(strings.TrimPrefix(comment.Text, "//"))
		rule, ok := strings.CutPrefix(line, "+k8s:")
		if !ok {
			continue
		}
		if strings.HasPrefix(rule, "alpha(") {
			continue
		}
		if strings.HasPrefix(rule, "beta(") {
			_, rule, _ = strings.Cut(rule, ")=")
		}
		rule = strings.ReplaceAll(strings.ReplaceAll(rule, "+k8s:", ""), "\"", "")
		if gated, ok := strings.CutPrefix(rule, "ifDisabled("); ok {
			gate, inner, _ := strings.Cut(gated, ")=")
			if !off[gate] {
				continue
			}
			rule = inner
		} else if gated, ok := strings.CutPrefix(rule, "ifEnabled("); ok {
			gate, inner, _ := strings.Cut(gated, ")=")
			if off[gate] {
				continue
			}
			rule = inner
		}
		name, _, _ := strings.Cut(rule, "=")
		if strings.HasSuffix(rule, "=optional") {
			continue
		}
		if name, _, _ := strings.Cut(name, "("); enforced[name] {
			found = append(found, strings.ReplaceAll(rule, " ", ""))
		}
	}
	return found
}

// enforced are the rules that the table carries.
var enforced = map[string]bool{
	"eachKey": true, "eachVal": true, "enum": true, "forbidden": true, "format": true, "ifMode": true, "immutable": true,
	"listMapKey": true, "maxBytes": true, "maxItems": true, "maxLength": true, "maximum": true, "minimum": true,
	"modeDiscriminator": true, "required": true, "subfield": true, "unionMember": true, "unique": true, "update": true,
}

// sourceFacts is what reflection does not know about a package.
type sourceFacts struct {
	types  map[string]markers             // by type name
	fields map[string]map[string]markers  // by type name and Go field name
	rules  map[string]map[string][]string // by type name and Go field name; a type's own without a field
	enums  map[string][]string            // values of string constants by type name
	consts map[string]string              // values of typed string constants by their own name
}

var sources = map[string]*sourceFacts{}

// source reads the comments and constants of a package.
func source(pkgPath string) *sourceFacts {
	if facts, ok := sources[pkgPath]; ok {
		return facts
	}
	facts := &sourceFacts{map[string]markers{}, map[string]map[string]markers{}, map[string]map[string][]string{}, map[string][]string{}, map[string]string{}}
	sources[pkgPath] = facts
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkgPath).Output()
	check(err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	check(err)
	sort.Strings(files)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		check(err)
		for _, decl := range parsed.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				facts.read(gen)
			}
		}
	}
	return facts
}

func (s *sourceFacts) read(gen *ast.GenDecl) {
	for _, spec := range gen.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			doc := spec.Doc
			if doc == nil {
				doc = gen.Doc
			}
			s.types[spec.Name.Name] = parseMarkers(doc)
			s.rules[spec.Name.Name] = map[string][]string{"": declaredRules(doc)}
			if body, ok := spec.Type.(*ast.StructType); ok {
				s.readFields(spec.Name.Name, body)
			}
		case *ast.ValueSpec:
			s.readConstant(gen, spec)
		}
	}
}

func (s *sourceFacts) readFields(typeName string, body *ast.StructType) {
	fields := map[string]markers{}
	for _, field := range body.Fields.List {
		found := parseMarkers(field.Doc)
		for _, name := range field.Names {
			s.rules[typeName][name.Name] = declaredRules(field.Doc)
			fields[name.Name] = found
		}
		if len(field.Names) == 0 {
			embedded := field.Type
			if star, ok := embedded.(*ast.StarExpr); ok {
				embedded = star.X
			}
			if selector, ok := embedded.(*ast.SelectorExpr); ok {
				s.rules[typeName][selector.Sel.Name] = declaredRules(field.Doc)
				fields[selector.Sel.Name] = found
			} else if ident, ok := embedded.(*ast.Ident); ok {
				fields[ident.Name] = found
			}
		}
	}
	s.fields[typeName] = fields
}

func (s *sourceFacts) readConstant(gen *ast.GenDecl, spec *ast.ValueSpec) {
	ident, ok := spec.Type.(*ast.Ident)
	if gen.Tok != token.CONST || !ok {
		return
	}
	for i, value := range spec.Values {
		if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			text, err := strconv.Unquote(literal.Value)
			check(err)
			s.enums[ident.Name] = append(s.enums[ident.Name], text)
			s.consts[spec.Names[i].Name] = text
		}
	}
}
