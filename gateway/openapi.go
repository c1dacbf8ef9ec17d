package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// securityScheme names how a key is shown, in the document.
const securityScheme = "api_key"

// schemaPrefix begins references to schemas in the document.
const schemaPrefix = "#/components/schemas/"

const apiDescription = `Events and jobs for bellhop, over HTTP.

A 2xx is given only once what was asked for is durable in Redis. A 503 has a Retry-After: nothing is wrong with the request, send it
again; with an Idempotency-Key it takes place once, however often it is sent.

Whatever is not a success is application/problem+json (RFC 9457): its ` + "`type`" + ` is for programs, its ` + "`detail`" + ` and ` + "`errors`" + ` name the
field and what to do. Every answer has an X-Request-Id, which the gateway's log knows.`

// newAPI makes the router that huma registers operations with. What huma would add of its own is left out: documentation that loads
// scripts from elsewhere, schema links that echo the request's Host.
func newAPI(g *Gateway) huma.API {
	return huma.NewAPI(huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "bellhop gateway", Version: "1", Description: apiDescription,
				License: &huma.License{Name: "MIT", Identifier: "MIT"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{securityScheme: { //nolint:gosec // how one looks, no key
					Type: "http", Scheme: "bearer", BearerFormat: "bh_<id>_<secret>",
					Description: "An API key made by `gateway keys create`, as `Authorization: Bearer bh_...`. Each operation lists the scope " +
						"that the key must have; the scope admin has all.",
				}},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{transform},
	}, adapter{g})
}

// jsonFormat writes an answer in one go. A client that has gone is no fault: huma would panic over it.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		_, _ = w.Write(b.Bytes())
		return nil
	},
	Unmarshal: unmarshal,
}

// schemaOf is the schema of a Go type, as a reference into the document.
func (g *Gateway) schemaOf(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return g.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

// jsonBody describes a body of JSON of v's type, with an example.
func (g *Gateway) jsonBody(v, example any) *huma.RequestBody {
	return &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{"application/json": {Schema: g.schemaOf(v), Example: example}},
	}
}

// jsonAnswer describes an answer of JSON of v's type.
func (g *Gateway) jsonAnswer(description string, v any) *huma.Response {
	return &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{"application/json": {Schema: g.schemaOf(v)}},
	}
}

// publicRoutes serves what a stranger may know. It comes last: the document lists all others.
func (g *Gateway) publicRoutes() error {
	schemas := g.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own, which transform replaces
	delete(schemas, "ErrorDetail")
	g.openAnswers(schemas)
	document, err := json.Marshal(g.api.OpenAPI())
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	root, err := json.MarshalIndent(map[string]string{
		"service": "bellhop gateway",
		"about":   "Events, jobs and webhooks come in here.",
		"openapi": "/openapi.json",
		"errors":  "application/problem+json",
		"keys":    "Authorization: Bearer bh_...",
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the answer of /: %w", err)
	}
	g.route(open, http.MethodGet, "/openapi.json", "", fixed("application/vnd.oai.openapi+json;version=3.1", document))
	g.route(open, http.MethodGet, "/{$}", "", fixed("application/json", append(root, '\n')))
	return nil
}

// openAnswers lets answers have fields that the document does not list: a later gateway adds some, and clients that were generated from
// this document must not break. What requests may have stays closed.
func (g *Gateway) openAnswers(schemas map[string]*huma.Schema) {
	asked := make(map[*huma.Schema]bool)
	for _, item := range g.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, media := range op.RequestBody.Content {
				reach(media.Schema, schemas, asked)
			}
		}
	}
	for _, s := range schemas {
		if !asked[s] {
			s.AdditionalProperties = nil
		}
	}
}

// reach notes the schema and those that it refers to.
func reach(s *huma.Schema, named map[string]*huma.Schema, seen map[*huma.Schema]bool) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	if name, ok := strings.CutPrefix(s.Ref, schemaPrefix); ok {
		reach(named[name], named, seen)
	}
	reach(s.Items, named, seen)
	for _, of := range s.Properties {
		reach(of, named, seen)
	}
	for _, of := range slices.Concat(s.OneOf, s.AnyOf, s.AllOf) {
		reach(of, named, seen)
	}
}

// fixed serves what does not change while the process lives.
func fixed(contentType string, body []byte) http.Handler {
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache")
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // the client is gone
	})
}
