package triggers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

// The bounds on what an expression may hold in memory, counted in values and in text of 16 bytes, and on how far a
// value is followed to count it. The cost limit alone would let [x].map(v, [v, v]) double a value at every step for next
// to nothing, and walking it would then take for ever.
const (
	maxValues     = 500_000
	maxValueNodes = 200_000
	valueUnit     = 16
	maxValueDepth = 1000
	maxRegexSize  = 10_000
	checkEvery    = 64 // loop steps between two looks at the context
)

// compiler compiles expressions under the limits of one Config.
type compiler struct {
	env *cel.Env
	cfg Config
}

func newCompiler(cfg Config) (*compiler, error) {
	opts := []cel.EnvOption{
		cel.Variable("event", cel.MapType(cel.StringType, cel.DynType)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(cfg.MaxExpressionBytes),
		cel.ParserRecursionLimit(64),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(20_000),
		cel.RegexProgramSizeLimit(maxRegexSize),
		ext.Strings(), ext.Encoders(), ext.Math(), ext.Sets(),
	}
	for name, typ := range attributes {
		opts = append(opts, cel.Variable("event."+name, typ))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	env, err = env.Extend(cel.CustomTypeAdapter(jsonAdapter{env.CELTypeAdapter()}))
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return &compiler{env: env, cfg: cfg}, nil
}

// expression is a compiled one. It is safe for concurrent use.
type expression struct {
	source  string
	program cel.Program
	typ     *cel.Type
	timeout time.Duration
	cost    uint64

	// path, if not nil, says that the expression only selects event.data.a.b: the value is passed on untouched.
	path []string
}

// compile reports every fault that CEL finds, with a hint on how to mend it.
func (c *compiler) compile(source string) (*expression, error) {
	if len(source) > c.cfg.MaxExpressionBytes {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed (max_expression_bytes)", len(source), c.cfg.MaxExpressionBytes)
	}
	checked, issues := c.env.Compile(source)
	if issues.Err() != nil {
		return nil, explainIssues(source, issues.Errors())
	}
	root := checked.NativeRep().Expr()
	if err := errors.Join(checkAttributes(root), checkFunctions(root)); err != nil {
		return nil, err
	}
	program, err := c.env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(c.cfg.CostLimit),
		cel.MemoryLimit(maxValues),
		cel.MemoryTracking(types.MemoryTrackerSizeCalculator(types.NewSizeCalculator(
			types.SizeCalculatorMaxTraversal(maxValueNodes), types.SizeCalculatorMaxDepth(maxValueDepth),
			types.SizeCalculatorStringUnitLength(valueUnit),
		))),
		cel.InterruptCheckFrequency(checkEvery),
	)
	if err != nil {
		return nil, fmt.Errorf("can't be planned: %s", truncate(err.Error()))
	}
	return &expression{
		source: source, program: program, typ: checked.OutputType(),
		timeout: c.cfg.EvalTimeout, cost: c.cfg.CostLimit, path: dataPath(root),
	}, nil
}

// checkAttributes catches event.tpye, which would be read as an extension that no event has.
func checkAttributes(root ast.Expr) error {
	var fault error
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind || e.AsSelect().Operand().Kind() != ast.IdentKind || e.AsSelect().Operand().AsIdent() != "event" {
			return
		}
		name := e.AsSelect().FieldName()
		if _, known := attributes[name]; known || fault != nil {
			return
		}
		for _, attribute := range attributeNames {
			if oneSlip(name, attribute) {
				fault = fmt.Errorf("no attribute event.%s: did you mean event.%s? If an extension is meant, write event[%q]", name, attribute, name)
			}
		}
	}))
	return fault
}

// unbounded are functions that come with the library of base64, and that neither the cost limit nor the context ends: a parser of
// YAML unfolds aliases, and what encodes a value follows it however often it is shared.
var unbounded = []string{"json.encode", "json.parse", "yaml.encode", "yaml.parse"}

func checkFunctions(root ast.Expr) error {
	var fault error
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.CallKind && slices.Contains(unbounded, e.AsCall().FunctionName()) {
			fault = fmt.Errorf("no function %s: the event's data is decoded already, and ${ } writes any value as JSON", e.AsCall().FunctionName())
		}
	}))
	return fault
}

// oneSlip tells whether a is b with one letter added, left out, replaced, or two neighbours swapped.
func oneSlip(a, b string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

func dataPath(e ast.Expr) []string {
	path := []string{}
	for e.Kind() == ast.SelectKind && !e.AsSelect().IsTestOnly() {
		path = append(path, e.AsSelect().FieldName())
		e = e.AsSelect().Operand()
	}
	if e.Kind() != ast.IdentKind || e.AsIdent() != "event.data" {
		return nil
	}
	return path
}

// errInterrupted says that the evaluation was broken off because its caller is leaving: nothing is wrong with the event.
var errInterrupted = errors.New("evaluation interrupted")

// absentError says that the expression named a field or an item that the event doesn't have.
type absentError struct{ what string }

func (e *absentError) Error() string {
	return e.what + ": test it with has(), or give a default: a.?b.orValue(x)"
}

// eval evaluates the expression within its limits.
func (x *expression) eval(ctx context.Context, vars *eventVars) (ref.Val, error) {
	bounded, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	value, _, err := x.program.ContextEval(bounded, vars)
	var cancelled interpreter.EvalCancelledError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
	case vars.fault != nil:
		return nil, vars.fault
	case err == nil && types.IsUnknown(value):
		return nil, errors.New("the value is unknown")
	case err == nil:
		return value, nil
	case bounded.Err() != nil:
		return nil, fmt.Errorf("evaluation took longer than %v (eval_timeout): simplify the expression", x.timeout)
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded:
		return nil, fmt.Errorf("evaluation costs more than %d units (cost_limit): simplify the expression, or raise the limit", x.cost)
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.MemoryLimitExceeded:
		return nil, errors.New("evaluation makes a value that is too large: simplify the expression, or name a part of the data only")
	}
	return nil, evalFault(err)
}

// evalFault tells a missing field from all that is really wrong: cel has no type for it, and no expression can make up a
// text that begins so.
func evalFault(err error) error {
	text := err.Error()
	for _, absent := range []string{"no such key: ", "no such attribute(s): ", "index out of bounds: "} {
		if strings.HasPrefix(text, absent) {
			return &absentError{truncate(text)}
		}
	}
	switch {
	case strings.HasPrefix(text, "no such overload"):
		text += " (a value is of another type than the expression needs: convert it, as in string(x) or double(x))"
	case strings.HasPrefix(text, "internal error"):
		text = "the evaluation panicked: " + text
	}
	return errors.New(truncate(text))
}

// writeTo writes the expression's value as JSON.
func (x *expression) writeTo(ctx context.Context, vars *eventVars, out *output) error {
	if value, ok := x.untouched(vars); ok {
		return out.native(value)
	}
	value, err := x.eval(ctx, vars)
	if err != nil {
		return err
	}
	return out.value(value)
}

// untouched is the value of a plain event.data.a.b, as it stands in the data. false leaves it to CEL, for its errors.
func (x *expression) untouched(vars *eventVars) (any, bool) {
	if x.path == nil {
		return nil, false
	}
	value, there := vars.attribute("data")
	if !there || vars.fault != nil {
		return nil, false
	}
	for _, v := range slices.Backward(x.path) {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = object[v]; !ok {
			return nil, false
		}
	}
	return value, true
}
