package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/internal/problem"
)

type bodyKey struct{}

// bodyOf is the request's body, of an operation that has a RequestBody.
func bodyOf(ctx context.Context) []byte {
	body, _ := ctx.Value(bodyKey{}).([]byte)
	return body
}

// readBody reads what the operation accepts. The guard bounds its size and its time.
func readBody(r *http.Request, accepts *huma.RequestBody) ([]byte, *problem.Problem) {
	if p := checkContentType(r.Header.Get("Content-Type"), accepts); p != nil {
		return nil, p
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	var told *problem.Problem
	switch {
	case err == nil && len(body) == 0 && accepts.Required:
		return nil, problem.Of(http.StatusBadRequest, "the request has no body, see the operation in /openapi.json")
	case err == nil:
		return body, nil
	case errors.As(err, &told):
		return nil, told
	case errors.As(err, &tooLarge):
		return nil, problem.Of(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the body is larger than %d bytes: send less, or store it elsewhere and send a reference", tooLarge.Limit))
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, problem.Of(http.StatusRequestTimeout, "the body came too slowly: send it again")
	default:
		return nil, problem.Of(http.StatusBadRequest, "the body can't be read: check its Content-Encoding and Content-Length")
	}
}

// checkContentType takes what is listed, anything with the suffix +json for application/json, and no content type at all.
func checkContentType(given string, accepts *huma.RequestBody) *problem.Problem {
	media, _, err := mime.ParseMediaType(given)
	_, jsonListed := accepts.Content["application/json"]
	_, listed := accepts.Content[media]
	_, anything := accepts.Content["*/*"]
	if given == "" || anything || err == nil && (listed || jsonListed && strings.HasSuffix(media, "+json")) {
		return nil
	}
	return problem.Of(http.StatusUnsupportedMediaType,
		"the body must be "+strings.Join(slices.Sorted(maps.Keys(accepts.Content)), " or "),
		problem.Fault{Header: "Content-Type", Detail: "it says something else"})
}
