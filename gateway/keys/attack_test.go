package keys

import (
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// A wrong token that has more of the right one's beginning must not be told apart by anything: the outcome, the calls to
// Redis, the work done. Its time cannot be asserted; that the comparison is crypto/subtle's can.
func TestWrongTokensTakeOnePath(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	store := NewStore(rdb, Config{Refresh: time.Minute, Trust: time.Minute})
	right, _, err := store.Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Verify(ctx, right); err != nil {
		t.Fatal(err)
	}
	calls := count(rdb)
	for n := range randomLength {
		body := []byte(right[:tokenLength-sumLength])
		for i := len(prefix) + idLength + 1 + n; i < len(body); i++ {
			body[i] = 'a' + (body[i]-'a'+1)%25 // another letter
			if body[i] < 'a' || body[i] > 'z' {
				body[i] = 'q'
			}
		}
		wrong := string(body) + checksum(string(body))
		if wrong == right || wrong[:len(prefix)+idLength+1+n] != right[:len(prefix)+idLength+1+n] {
			t.Fatalf("prefix %d: a bad test: %s", n, wrong)
		}
		if _, ok := parseToken(wrong); !ok {
			t.Fatalf("prefix %d: %s is no token", n, wrong)
		}
		if _, err := store.Verify(ctx, wrong); !errors.Is(err, ErrUnknown) || err.Error() != ErrUnknown.Error() {
			t.Errorf("prefix %d: %v", n, err)
		}
		if found, err := store.find(ctx, wrong[3:15]); err != nil || found == nobody {
			t.Fatalf("prefix %d: nothing was compared, the id is not found: %v", n, err)
		}
	}
	if n := calls.total.Load(); n != 0 {
		t.Errorf("wrong tokens cost %d calls to Redis", n)
	}
	if _, err := store.Verify(ctx, right); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// The hashes are compared in one place, by crypto/subtle, and by nothing else anywhere in the package.
func TestHashesAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				switch name := selector(n); name {
				case "subtle.ConstantTimeCompare":
					compared++
				case "bytes.Equal", "bytes.Compare", "bytes.HasPrefix", "reflect.DeepEqual", "slices.Equal":
					t.Errorf("%s: %s", f.Name(), name)
				}
			case *ast.BinaryExpr:
				for _, side := range []ast.Expr{n.X, n.Y} {
					if s, ok := side.(*ast.SelectorExpr); ok && (n.Op == gotoken.EQL || n.Op == gotoken.NEQ) && strings.Contains(strings.ToLower(s.Sel.Name), "hash") {
						t.Errorf("%s: a hash is compared with %s", f.Name(), n.Op)
					}
				}
			}
			return true
		})
	}
	if compared != 1 {
		t.Errorf("subtle.ConstantTimeCompare stands in %d places, want 1", compared)
	}
}

func selector(s *ast.SelectorExpr) string {
	if x, ok := s.X.(*ast.Ident); ok {
		return x.Name + "." + s.Sel.Name
	}
	return ""
}

// 100,000 guesses, each of a form that could be a key, fill no memory and hardly reach Redis.
func TestGuessesCostNothing(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	store := NewStore(rdb, Config{})
	if _, _, err := store.Create(ctx, Key{Name: "n", Scopes: []Scope{Read}}); err != nil {
		t.Fatal(err)
	}
	calls := count(rdb)
	before := heap()
	began := time.Now()
	for range 100_000 {
		guess, _ := newToken()
		if _, err := store.Verify(ctx, guess); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	took, grown := time.Since(began), int64(heap())-int64(before)
	t.Logf("100,000 guesses in %v: %d calls to Redis, heap %+d bytes", took, calls.total.Load(), grown)
	if n, most := calls.total.Load(), 3+2*int64(took/unknownAfter); n > most {
		t.Errorf("%d calls to Redis in %v, at most %d were expected", n, took, most)
	}
	if known := len(store.table.current.Load().keys); known != 1 {
		t.Errorf("the table has %d keys", known)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTokens(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^bh_[a-z2-7]{12}_[a-z2-7]{47}$`)
	seen := make(map[string]bool)
	for range 1000 {
		text, made := newToken()
		read, ok := parseToken(text)
		if !form.MatchString(text) || !ok || read != made || seen[text] || seen[made.id] {
			t.Fatalf("token %q: %+v, %v", text, read, ok)
		}
		seen[text], seen[made.id] = true, true
	}
	if bits := 5 * randomLength; bits < 160 {
		t.Errorf("a secret has %d bits", bits)
	}
	right, _ := newToken()
	for i := range right { // one letter mistyped is never taken for a token
		wrong := []byte(right)
		if wrong[i]++; wrong[i] > 'z' {
			wrong[i] = 'a'
		}
		if _, ok := parseToken(string(wrong)); ok {
			t.Errorf("%q with letter %d mistyped is a token", right, i)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	right, _ := newToken()
	for _, s := range []string{
		"", "bh_", right, strings.ToUpper(right), right + "a", right[1:], right[:20] + "\x00" + right[21:],
		"bh_aaaaaaaaaaaa_" + strings.Repeat("a", 47),
	} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^bh_[a-z2-7]{12}_[a-z2-7]{47}$`)
	f.Fuzz(func(t *testing.T, text string) {
		read, ok := parseToken(text)
		if !ok {
			if read != (token{}) {
				t.Errorf("%q is none, but has %+v", text, read)
			}
			return
		}
		if !form.MatchString(text) || text[3:15] != read.id || checksum(text[:tokenLength-sumLength]) != text[tokenLength-sumLength:] {
			t.Errorf("%q was taken for a token: %+v", text, read)
		}
	})
}
