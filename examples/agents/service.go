package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"sync"
)

// maxBody is what bellhop sends at most: an event of 1 MiB, and what stands around it.
const maxBody = 2 << 20

// Event is what a workflow gets: a CloudEvent in its JSON form.
type Event struct {
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Subject string          `json:"subject,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// Run is what became of a call.
type Run struct {
	Workflow string   `json:"workflow"`
	Event    string   `json:"event"` // its id
	Type     string   `json:"type"`
	Steps    []string `json:"steps,omitempty"`
	Calls    int      `json:"calls"` // more than one, if an answer was lost on the way back
}

// Service runs workflows, each once for a job. What it remembers is lost with the process: a real one keeps its runs where it
// keeps everything else.
type Service struct {
	secrets string

	mu   sync.Mutex
	keys []string // of runs, in their order
	runs map[string]*Run
}

// NewService returns a service that finds the secret of deliveries to NAME in the file NAME of the directory.
func NewService(secrets string) *Service {
	return &Service{secrets: secrets, runs: make(map[string]*Run)}
}

// Handler serves POST /workflows/{name}, POST /webhooks/{name} and GET /runs.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /workflows/{name}", s.run)
	mux.HandleFunc("POST /webhooks/{name}", s.receive)
	mux.HandleFunc("GET /runs", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Runs()) })
	return mux
}

// run is called by http:request. A 2xx ends the job; 408, 429 and 5xx are tried again; any other status ends it as dead.
func (s *Service) run(w http.ResponseWriter, r *http.Request) {
	workflow, ok := workflows[r.PathValue("name")]
	if !ok {
		http.Error(w, "there is no such workflow", http.StatusNotFound)
		return
	}
	var call struct {
		Event Event `json:"event"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&call); err != nil {
		http.Error(w, "the body is no event: "+err.Error(), http.StatusBadRequest)
		return
	}
	// The job's id: the same in all its attempts.
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		http.Error(w, "the header Idempotency-Key is missing", http.StatusBadRequest)
		return
	}
	run, err := s.once(key, r.PathValue("name"), call.Event, workflow)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, run)
}

// receive takes what webhook:fanout has sent, if it is signed.
func (s *Service) receive(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !regexp.MustCompile(`^[a-z]+$`).MatchString(name) {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body can't be read", http.StatusBadRequest)
		return
	}
	if err := verify(filepath.Join(s.secrets, name), r.Header, body); err != nil {
		slog.Warn("a delivery was refused", "name", name, "err", err)
		http.Error(w, "the signature does not hold", http.StatusUnauthorized)
		return
	}
	var event Event
	if err := json.Unmarshal(body, &event); err != nil {
		http.Error(w, "the body is no event", http.StatusBadRequest)
		return
	}
	// Webhook-Id is the same in all attempts.
	run, err := s.once(r.Header.Get("Webhook-Id"), "webhook "+name, event, func(Event) ([]string, error) { return []string{"taken"}, nil })
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, run)
}

// once runs the workflow unless it ran for this key before: a second call means that the first one's answer did not arrive.
func (s *Service) once(key, name string, event Event, workflow func(Event) ([]string, error)) (Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run, ok := s.runs[key]; ok {
		run.Calls++
		return *run, nil
	}
	steps, err := workflow(event)
	if err != nil {
		return Run{}, err
	}
	run := &Run{Workflow: name, Event: event.ID, Type: event.Type, Steps: steps, Calls: 1}
	s.keys, s.runs[key] = append(s.keys, key), run
	slog.Info("workflow done", "workflow", name, "event", event.ID, "type", event.Type, "steps", steps)
	return *run, nil
}

// Runs are all there were, in their order.
func (s *Service) Runs() []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	runs := make([]Run, 0, len(s.keys))
	for _, key := range s.keys {
		runs = append(runs, *s.runs[key])
	}
	return runs
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}
