package triggers

import (
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSplitTemplate(t *testing.T) {
	t.Parallel()
	lit := func(s string) part { return part{text: s} }
	expr := func(s string) part { return part{text: s, expr: true} }
	for text, want := range map[string][]part{
		"":                               {lit("")},
		"plain $ { } text":               {lit("plain $ { } text")},
		"${a}":                           {expr("a")},
		"a ${ b } c":                     {lit("a "), expr(" b "), lit(" c")},
		"${a}${b}":                       {expr("a"), expr("b")},
		"$${a} ${b}":                     {lit("${a} "), expr("b")},
		"costs $$5":                      {lit("costs $$5")},
		"${{'a': {'b': 1}}['a']}":        {expr("{'a': {'b': 1}}['a']")},
		`${"}" + '}' + "\"}"}!`:          {expr(`"}" + '}' + "\"}"`), lit("!")},
		`${r"\" + "}"}`:                  {expr(`r"\" + "}"`)},
		`${br'\' == b'}'}`:               {expr(`br'\' == b'}'`)},
		"${'''}\n'}''' + \"\"\"}\"\"\"}": {expr("'''}\n'}''' + \"\"\"}\"\"\"")},
		"${a // the } brace\n}":          {expr("a // the } brace\n")},
		"${event.data.`a}b`}":            {expr("event.data.`a}b`")},
		"${'ü}'}ü":                       {expr("'ü}'"), lit("ü")},
	} {
		got, err := splitTemplate(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestSplitTemplateRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"${a":           "never closed",
		"x ${ {'a': 1}": "character 3 is never closed",
		`${"a}`:         "string that is never closed",
		"${'a\n'}":      "string that is never closed",
		"${'''a}":       "string that is never closed",
		`${"\`:          "string that is never closed",
		"${a // }":      "never closed",
		"${}":           "is empty",
		"${ \t}":        "is empty",
		"${`a}":         "string that is never closed",
	} {
		if got, err := splitTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestEscapedTextIsLiteral(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.RuneFrom([]rune("${}ab'\"\\ü"))).Draw(t, "text")
		// A $ right before ${ would be read as the beginning of the escape.
		if strings.Contains(text, "$${") {
			return
		}
		got, err := splitTemplate(strings.ReplaceAll(text, "${", "$${"))
		if err != nil || len(got) != 1 || got[0] != (part{text: text}) {
			t.Fatalf("%q came back as %v, %v", text, got, err)
		}
	})
}

// What CEL itself reads as one expression must come out of ${ } whole: CEL's parser is the judge.
func FuzzSplitTemplate(f *testing.F) {
	for _, s := range []string{
		"a", `"}"`, "{'a': 1}", `r'\'`, `b"\x7d"`, "'''a'''", "a.`}`", "[{1: '}'}][0][1]", "x // }", "''''}'''", `br"\"`, "\"\\\"}\"", "''", "a{b: '}'}",
	} {
		f.Add(s)
	}
	env, err := cel.NewEnv(cel.ParserRecursionLimit(30), cel.ParserExpressionSizeLimit(500))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 500 {
			return
		}
		_, _ = splitTemplate(s) // must not panic
		parts, err := splitTemplate("<${" + s + "\n}>")
		if _, issues := env.Parse(s); issues.Err() != nil || strings.TrimSpace(s) == "" {
			return
		}
		want := []part{{text: "<"}, {text: s + "\n", expr: true}, {text: ">"}}
		if diff := cmp.Diff(want, parts, cmp.AllowUnexported(part{})); diff != "" || err != nil {
			t.Errorf("CEL reads %q as one expression, splitTemplate doesn't: %v\n%s", s, err, diff)
		}
	})
}
