package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

const keysHelp = `Makes, lists and revokes the API keys that callers of the gateway show. Redis holds a digest of each, never the key itself.

Scopes: publish (publish events), enqueue (enqueue and cancel jobs), read (look at events, jobs and tasks), admin (all of it; replay
events, change triggers).`

// keysWithin bounds a command's work with Redis.
const keysWithin = 10 * time.Second

func (p *process) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Make, list and revoke API keys", Long: keysHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unknown command %q: there are keys create, keys list and keys revoke", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return cli.Usagef("what shall be done with the keys? There are keys create, keys list and keys revoke")
		},
	}
	cmd.AddCommand(p.createKeyCommand(), p.listKeysCommand(), p.revokeKeyCommand())
	return cmd
}

// common are the flags of every command of keys.
func (p *process) common(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVar(&p.json, "json", false, "print JSON, for scripts")
	config.AddFlags(f, "config", "redis")
}

func (p *process) createKeyCommand() *cobra.Command {
	var name, scopes string
	var expires lifetime
	var rate float64
	cmd := &cobra.Command{
		Use:   "create --name NAME --scopes LIST",
		Short: "Make a key and print it, this once",
		Long:  "Makes a key. It stands alone on standard output, and is shown only now: keep it where secrets are kept.",
		Example: `  gateway keys create --name shop --scopes publish,enqueue
  gateway keys create --name ci --scopes enqueue,read --expires 90d --rate 50 > key`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := keys.ParseScopes(scopes)
			if err != nil {
				return cli.Usagef("--scopes: %w", err)
			}
			key := keys.Key{Name: name, Scopes: list, Rate: rate}
			switch {
			case strings.TrimSpace(name) == "":
				return cli.Usagef("--name is missing: say whose key it is")
			case cmd.Flags().Changed("expires") && expires <= 0:
				return cli.Usagef("--expires %v is no time to come: give one such as 90d, or leave it out", &expires)
			case rate < 0:
				return cli.Usagef("--rate %v is negative: leave it out for the gateway's default", rate)
			case expires > 0:
				key.Expires = time.Now().Add(time.Duration(expires)).UTC().Truncate(time.Second)
			}
			return p.withKeys(cmd, func(ctx context.Context, store *keys.Store) error { return p.createKey(ctx, store, key) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "whose key it is, for people (required)")
	f.StringVar(&scopes, "scopes", "", "what it may do, as `LIST` of publish, enqueue, read, admin (required)")
	f.Var(&expires, "expires", "how long it is good, such as 90d or 12h (default: for ever)")
	f.Float64Var(&rate, "rate", 0, "requests a second that it may make in the whole fleet (default: gateway.guard.rate)")
	p.common(f)
	return cmd
}

// lifetime is a duration that may be told in days, as people think of keys: 90d.
type lifetime time.Duration

func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

func (l *lifetime) Set(text string) error {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if hours := n * 24; err == nil && math.Abs(hours) < math.MaxInt64/float64(time.Hour) {
			*l = lifetime(hours * float64(time.Hour))
			return nil
		}
		return fmt.Errorf("%q is no number of days: write 90d", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("write it such as 90d or 12h")
	}
	*l = lifetime(d)
	return nil
}

func (*lifetime) Type() string { return "duration" }

func (p *process) createKey(ctx context.Context, store *keys.Store, key keys.Key) error {
	token, made, err := store.Create(ctx, key)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if p.json {
		return p.printJSON(struct {
			keys.Key
			Token string `json:"token"`
		}{made, token})
	}
	fmt.Fprintf(p.stderr, "key %s for %q; it is shown only this once:\n", made.ID, made.Name)
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}

func (p *process) listKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys, without what is secret", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.withKeys(cmd, p.listKeys) },
	}
	p.common(cmd.Flags())
	return cmd
}

func (p *process) listKeys(ctx context.Context, store *keys.Store) error {
	list, err := store.List(ctx)
	if err != nil {
		return fmt.Errorf("list the keys: %w", err)
	}
	if p.json {
		return p.printJSON(append([]keys.Key{}, list...))
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tSCOPES\tRATE\tCREATED\tEXPIRES\tLAST USED")
	for _, k := range list {
		var scopes []string
		for _, s := range k.Scopes {
			scopes = append(scopes, string(s))
		}
		rate := "default"
		if k.Rate > 0 {
			rate = strconv.FormatFloat(k.Rate, 'f', -1, 64) + "/s"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, strings.Join(scopes, ","), rate, when(k.Created), when(k.Expires), when(k.LastUsed))
	}
	return table.Flush()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}

func (p *process) revokeKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a key, by its id",
		Long: "Revokes a key: every gateway refuses it within gateway.auth.refresh (2s). Its id stands in the list, and in the key itself: bh_<id>_<secret>.\n" +
			"One that leaked may be given whole.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("which key? Name its ID: gateway keys list shows them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withKeys(cmd, func(ctx context.Context, store *keys.Store) error { return p.revokeKey(ctx, store, idOf(args[0])) })
		},
	}
	p.common(cmd.Flags())
	return cmd
}

// idOf takes the id out of a whole key. Nothing else of it is looked at, nor told.
func idOf(text string) string {
	whole, ok := strings.CutPrefix(text, "bh_")
	if !ok {
		return text
	}
	id, _, _ := strings.Cut(whole, "_")
	return id
}

func (p *process) revokeKey(ctx context.Context, store *keys.Store, id string) error {
	err := store.Revoke(ctx, id)
	switch {
	case errors.Is(err, keys.ErrNotFound):
		return cli.Usagef("there is no key with the id %q: gateway keys list shows them", id)
	case err != nil:
		return fmt.Errorf("revoke the key: %w", err)
	case p.json:
		return p.printJSON(map[string]string{"revoked": id})
	}
	_, err = fmt.Fprintf(p.stdout, "key %s is revoked\n", id)
	return err
}

// withKeys runs a command over the keys in Redis.
func (p *process) withKeys(cmd *cobra.Command, do func(context.Context, *keys.Store) error) error {
	if err := p.load(cmd); err != nil {
		return err
	}
	rdb, err := redisconn.Open(p.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	defer rdb.Close() //nolint:errcheck // nothing is left to be said
	ctx, cancel := context.WithTimeout(cmd.Context(), keysWithin)
	defer cancel()
	return do(ctx, keys.NewStore(rdb, p.cfg.Gateway.Keys))
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("unknown argument %q: keys %s takes flags only", args[0], cmd.Name())
	}
	return nil
}

func (p *process) printJSON(v any) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
