package handlers

import (
	"errors"
	"log/slog"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Config is how the built-in handlers run. The zero value is useful.
type Config struct {
	HTTP     HTTPConfig    `mapstructure:"http"`
	Email    EmailConfig   `mapstructure:"email"`
	Webhooks WebhookConfig `mapstructure:"webhooks"`
	AMQP     AMQPConfig    `mapstructure:"amqp"`
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	faults = append(faults, prefixed("http", c.HTTP.faults())...)
	faults = append(faults, prefixed("email", c.Email.faults())...)
	faults = append(faults, prefixed("webhooks", c.Webhooks.faults())...)
	faults = append(faults, prefixed("amqp", c.AMQP.faults())...)
	return errors.Join(faults...)
}

// Deps are what the built-in handlers work with beside their configuration.
type Deps struct {
	// Jobs enqueues what a job leads to: the deliveries of webhook:fanout.
	Jobs *job.Client

	// Endpoints keeps what the fleet knows of webhook endpoints: *endpoints.Client. Without it webhook:deliver fails.
	Endpoints WebhookState

	// Events is the stream of events:replay: *events.Client. Without it events:replay fails.
	Events EventReplayer

	// Logger is where log:write writes, and where the others tell what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

// Routes binds the built-in tasks to their handlers, to be given to a worker.
func Routes(cfg Config, deps Deps) ([]job.Route, error) {
	http, err := NewHTTP(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	webhooks, err := NewWebhooks(cfg.Webhooks, deps)
	if err != nil {
		return nil, err
	}
	email, err := NewEmail(cfg.Email)
	if err != nil {
		return nil, err
	}
	amqp, err := NewAMQP(cfg.AMQP)
	if err != nil {
		return nil, err
	}
	log := NewLog(deps.Logger)
	return []job.Route{
		tasks.RequestHTTP.HandledBy(http.Request),
		tasks.WriteLog.HandledBy(log.Write),
		tasks.ReplayEvents.HandledBy(NewEvents(deps.Events, deps.Logger).Replay),
		tasks.DeliverWebhook.HandledBy(webhooks.Deliver),
		tasks.FanOutWebhook.HandledBy(webhooks.FanOut),
		tasks.SendEmail.HandledBy(email.Send),
		tasks.PublishAMQP.HandledBy(amqp.Publish),
	}, nil
}
