package job_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/bellhop-dev/bellhop/job"
)

// Cards stands for a payment service that takes an idempotency key.
type Cards struct{ charged map[string]int }

func (c *Cards) Charge(_ context.Context, key, _ string, cents int) (string, error) {
	c.charged[key] += cents
	return "ch_1", nil
}

type Shop struct {
	cards *Cards
	once  *job.Once
}

type Order struct {
	Card  string `json:"card"`
	Cents int    `json:"cents"`
}

// The key goes to the payment service too: it closes the window between the charge and the word of it.
func (s *Shop) ChargeOrder(ctx context.Context, p Order) error {
	key, err := job.IdempotencyKey(ctx, "charge")
	if err != nil {
		return err
	}
	receipt, err := job.OnceValue(ctx, s.once, key, func(ctx context.Context) (string, error) {
		return s.cards.Charge(ctx, key, p.Card, p.Cents)
	})
	if err != nil {
		return err // job.ErrOnceBusy puts the job off
	}
	fmt.Println("receipt", receipt)
	return nil
}

// A handler that charges a card. Whoever runs the job again, after a crash or a lost answer, finds it charged.
func ExampleOnce() {
	rdb, closeAll := openRedis()
	defer closeAll()
	once, err := job.NewOnce(rdb, job.OnceConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	shop := &Shop{cards: &Cards{charged: make(map[string]int)}, once: once}
	for attempt := 1; attempt <= 2; attempt++ { // what a worker does
		ctx := job.NewContext(context.Background(), &job.Job{ID: "order-42", Queue: "shop", Attempt: attempt})
		if err := shop.ChargeOrder(ctx, Order{Card: "tok_1", Cents: 990}); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(shop.cards.charged)
	// Output:
	// receipt ch_1
	// receipt ch_1
	// map[shop:order-42:charge:990]
}

// Ledger books in a database of one's own: the effect and its key are stored in one transaction, and nothing is left to chance.
type Ledger struct{ db *sql.DB }

func (l *Ledger) Book(ctx context.Context, p Order) error {
	key, err := job.IdempotencyKey(ctx, "book")
	if err != nil {
		return err
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	done, err := tx.ExecContext(ctx, `INSERT INTO effects (key) VALUES ($1) ON CONFLICT DO NOTHING`, key)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err // n == 0: an earlier run has booked it
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO bookings (card, cents) VALUES ($1, $2)`, p.Card, p.Cents); err != nil {
		return err
	}
	return tx.Commit()
}

// The key in one's own transaction needs no Redis.
func ExampleIdempotencyKey() {
	ctx := job.NewContext(context.Background(), &job.Job{ID: "order-42", Queue: "shop", Attempt: 1}) // what a worker does
	key, err := job.IdempotencyKey(ctx, "book")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(key)
	// Output:
	// shop:order-42:book
}
