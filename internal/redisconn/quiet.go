package redisconn

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// QuietDriver brings the driver's own log lines, which repeat with every failed dial, into log as debug lines. The driver knows one
// logger for the whole process, so this is main's to call.
func QuietDriver(log *slog.Logger) { redis.SetLogger(driverLogger{log}) }

type driverLogger struct{ log *slog.Logger }

func (l driverLogger) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis driver: "+fmt.Sprintf(format, args...)) //nolint:sloglint // the driver's words
}
