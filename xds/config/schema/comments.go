package schema

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"strings"

	"tollgate/internal/strictyaml"
)

// Comments are the doc comments of types ("Route") and fields ("Route.Name").
type Comments map[string]string

// ReadComments reads them from the Go sources in a folder.
func ReadComments(sources fs.FS) (Comments, error) {
	names, err := fs.Glob(sources, "*.go")
	if err != nil {
		return nil, err
	}
	out := Comments{}
	for _, name := range names {
		data, err := fs.ReadFile(sources, name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, data, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			if decl, ok := d.(*ast.GenDecl); ok && decl.Tok == token.TYPE {
				out.declaration(decl)
			}
		}
	}
	return out, nil
}

func (c Comments) declaration(decl *ast.GenDecl) {
	for _, s := range decl.Specs {
		spec, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		doc := spec.Doc
		if doc == nil {
			doc = decl.Doc
		}
		c[spec.Name.Name] = oneLine(doc)
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range structure.Fields.List {
			for _, name := range f.Names {
				c[spec.Name.Name+"."+name.Name] = oneLine(f.Doc)
			}
		}
	}
}

func oneLine(doc *ast.CommentGroup) string {
	return strings.Join(strings.Fields(doc.Text()), " ")
}

// field is the comment of a field, its Go name replaced by its key.
func (c Comments) field(f strictyaml.Field) string {
	text := c[f.Owner.Name()+"."+f.GoName]
	if rest, ok := strings.CutPrefix(text, f.GoName); ok && rest != "" && strings.ContainsAny(rest[:1], " .:;,") {
		return f.Name + rest
	}
	return text
}
