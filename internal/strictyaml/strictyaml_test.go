package strictyaml_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/strictyaml"
)

type inner struct {
	strictyaml.Pos
	Name  strictyaml.Value[string] `yaml:"name,required"`
	Color strictyaml.Value[string] `yaml:"color" oneof:"red green" later:"blue"`
	Size  strictyaml.Value[int64]  `yaml:"size" range:"1..9"`
	Nodes []inner                  `yaml:"nodes,nest"`
}

type document struct {
	strictyaml.Pos
	Nodes []inner                                                 `yaml:"nodes,nest"`
	Map   strictyaml.Map[strictyaml.Value[bool]]                  `yaml:"map"`
	List  strictyaml.List[strictyaml.Value[string]]               `yaml:"list"`
	One   strictyaml.Value[string]                                `yaml:"one" alt:"one"`
	Two   strictyaml.Value[string]                                `yaml:"two" alt:"one"`
	Soon  strictyaml.Later                                        `yaml:"soon"`
	Deep  strictyaml.Map[strictyaml.List[inner]]                  `yaml:"deep"`
	Empty strictyaml.Map[[]strictyaml.Value[string]]              `yaml:"empty"`
	Alias *strictyaml.List[*strictyaml.Value[string]]             `yaml:"alias"`
	Lists strictyaml.List[[]strictyaml.Value[string]]             `yaml:"lists"`
	Maps  []strictyaml.Map[strictyaml.Value[string]]              `yaml:"maps"`
	Twice strictyaml.Map[strictyaml.Map[*strictyaml.List[inner]]] `yaml:"twice"`
}

func references(ref string) (string, error) {
	if ref == "env:N" {
		return "5", nil
	}
	return "", errors.New(ref + " is unset")
}

func decode(text string) (document, []string) {
	var d document
	var out []string
	for _, f := range strictyaml.Decode([]byte(text), &d, strictyaml.Options{File: "f", Resolve: references}) {
		out = append(out, fmt.Sprintf("%d:%d %s: %s", f.Line, f.Col, f.Path, f.Message))
	}
	return d, out
}

// TestSlipsMean: what stands for a slip is what was likeliest meant.
func TestSlipsMean(t *testing.T) {
	d, _ := decode("nodes: [{name: a, colour: geen, size: 10}, {name: b, color: blue, size: -3}, {name: c, color: mauve}]\n")
	for i, want := range []struct {
		color string
		size  int64
	}{{"green", 9}, {"blue", 1}, {"mauve", 0}} {
		if n := d.Nodes[i]; n.Color.V != want.color || n.Size.V != want.size {
			t.Errorf("%s is %s and %d, want %+v", n.Name.V, n.Color.V, n.Size.V, want)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", []string{"1:1 : the file is empty"}},
		{"comments alone", "# x\n", []string{"1:1 : the file is empty"}},
		{"null", "one:\n", []string{"1:5 one: has no value: write one, or remove the key"}},
		{"unknown", "onne: 1\n", []string{`1:1 : unknown key "onne"; did you mean "one"?`}},
		{"unknown and far", "xyz: 1\n", []string{`1:1 : unknown key "xyz"`}},
		{"duplicate", "one: 1\none: 2\n", []string{`2:1 : duplicate key "one"; the first is on line 1`}},
		{"duplicate in a map", "map: {a: true, a: false}\n", []string{`1:16 map: duplicate key "a"; the first is on line 1`}},
		{"exclusive", "one: 1\ntwo: 2\n", []string{"1:1 : one and two exclude each other: write one"}},
		{"later", "soon: {}\n", []string{"1:1 : soon is not supported in this version"}},
		{"required, one of, range, nested path", "nodes:\n  - name: a\n    nodes:\n      - {name: b, color: geen, size: 10}\n      - {color: blue}\n", []string{
			`4:26 nodes[a/b].color: "geen" is not one of red, green; did you mean "green"?`,
			"4:38 nodes[a/b].size: must be from 1 to 9, not 10",
			"5:17 nodes[a/1].color: blue is not supported in this version",
			"5:9 nodes[a/1]: name is missing",
		}},
		{"a slip is read as what was meant", "nodes: [{nmae: a, color: red, nodse: [{name: b, colour: green}]}]\n", []string{
			`1:10 nodes[0]: unknown key "nmae"; did you mean "name"?`,
			`1:31 nodes[0]: unknown key "nodse"; did you mean "nodes"?`,
			`1:49 nodes[0/b]: unknown key "colour"; did you mean "color"?`,
		}},
		{"a slip beside the right key", "nodes: [{nmae: [x], name: a, naem: [x]}]\n", []string{
			`1:10 nodes[a]: unknown key "nmae"; did you mean "name"?`,
			`1:30 nodes[a]: unknown key "naem"; did you mean "name"?`,
		}},
		{"what is wrong below a slip is told", "nodse: [{color: red}]\n", []string{
			`1:1 : unknown key "nodse"; did you mean "nodes"?`,
			"1:9 nodes[0]: name is missing",
		}},
		{"octal", "nodes: [{name: a, size: 010}]\n", []string{`1:25 nodes[a].size: must be a whole number, not "010"`}},
		{"yes", "map: {a: yes}\n", []string{`1:10 map.a: must be true or false, not "yes"`}},
		{"list wanted", "list: x\n", []string{"1:7 list: must be a list or `none`, not \"x\""}},
		{"reference", "one: env:M\nnodes: [{name: a, size: file:x}]\n", []string{"1:6 one: env:M is unset", "2:25 nodes[a].size: file:x is unset"}},
		{"merge", "map: {<<: {a: true}}\n", []string{"1:7 : merge keys are not supported: write the values out, or use defaults and groups"}},
		{"quoted merge is a key", "map: {'<<': true}\n", nil},
		{"key that is no word", "{[a]: 1}\n", []string{"1:2 : a key must be a word"}},
		{"anchor on a key", "&a one: 1\n", []string{"1:1 : anchors and aliases are not supported: write the key out"}},
		{"tag", "one: !secret x\n", []string{"1:6 : tags are not supported: remove !secret"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := decode(test.text)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestValues(t *testing.T) {
	d, faults := decode("nodes: [{name: 1.50, size: env:N}]\nlist: none\nmap: {b: true, a: false}\n")
	if faults != nil {
		t.Fatal(faults)
	}
	n := d.Nodes[0]
	if n.Name.V != "1.50" || n.Size.V != 5 || n.Size.Ref != "env:N" || n.Size.Shown() != "env:N" || n.Size.Pos != (strictyaml.Pos{File: "f", Line: 1, Col: 28}) {
		t.Errorf("%+v", n)
	}
	if !d.List.None || !d.List.IsSet() || d.Map.Items[0].Key.V != "b" || d.One.IsSet() {
		t.Errorf("%+v", d)
	}
}

// TestLimits: at the limit a file is read, beyond it is refused with a reason.
func TestLimits(t *testing.T) {
	nested := func(n int) string { return "one: " + strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, test := range map[string]struct{ text, want string }{
		"depth":     {nested(strictyaml.MaxDepth - 1), "must be one value"},
		"too deep":  {nested(strictyaml.MaxDepth), "nested deeper"},
		"far deep":  {nested(100_000), "nested deeper"},
		"size":      {"# " + strings.Repeat("x", strictyaml.MaxSize), "at most"},
		"values":    {strings.Repeat("[,", 1<<20), "values; split it"},
		"nul":       {"one: a\n\x00", "a NUL byte"},
		"not UTF-8": {"one: \xff\xfe", "not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := decode(test.text)
			if len(got) == 0 || !strings.Contains(got[0], test.want) {
				t.Errorf("got %.200v, want %q", got, test.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("nodes: [{name: a, color: red, size: 3, nodes: [{name: b}]}]\nmap: {x: true}\nlist: none\n")
	f.Add("a: &a [*a]\n")
	f.Add("deep: {x: [{name: y}]}\ntwice: {a: {b: none}}\nlists: [[a], []]\nmaps: [{a: b}]\nalias: [a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, one := decode(text)
		_, two := decode(text)
		if diff := cmp.Diff(one, two); diff != "" {
			t.Errorf("decoded twice:\n%s", diff)
		}
	})
}

// TestNearest: each mistake of the hand is one edit, a swap of neighbours too.
func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"por": "pro", "pro": "pro", "pr": "", "proo": "pro", "prx": "pro", "rpo": "pro", "orp": "", "xyz": "",
		"etnerpirse": "enterprise", "fere": "free", "": "",
	} {
		if got := strictyaml.Nearest(word, []string{"enterprise", "free", "pro"}); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func ExampleSuggest() {
	fmt.Println("unknown key \"rotues\"" + strictyaml.Suggest("rotues", []string{"routes", "plans"}))
	// Output: unknown key "rotues"; did you mean "routes"?
}
