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

// sourceFacts is what reflection does not know about a package.
type sourceFacts struct {
	types  map[string]markers            // by type name
	fields map[string]map[string]markers // by type name and Go field name
	enums  map[string][]string           // values of string constants by type name
	consts map[string]string             // values of typed string constants by their own name
}

var sources = map[string]*sourceFacts{}

// source reads the comments and constants of a package.
func source(pkgPath string) *sourceFacts {
	if facts, ok := sources[pkgPath]; ok {
		return facts
	}
	facts := &sourceFacts{map[string]markers{}, map[string]map[string]markers{}, map[string][]string{}, map[string]string{}}
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
			fields[name.Name] = found
		}
		if len(field.Names) == 0 {
			embedded := field.Type
			if star, ok := embedded.(*ast.StarExpr); ok {
				embedded = star.X
			}
			if selector, ok := embedded.(*ast.SelectorExpr); ok {
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
