package events

// The extensions of a copy that [Client.Replay] publishes.
const (
	// ExtensionReplayOf is the id of the event that was replayed.
	ExtensionReplayOf = "replayof"
	// ExtensionReplayID is the id of the replay.
	ExtensionReplayID = "replayid"
	// ExtensionReplayTrigger names the one trigger that shall see the copy, as "trigger" or "group:trigger"; absent, all do.
	ExtensionReplayTrigger = "replaytrigger"
)

// ReplayedFor returns the only trigger that an event is meant for, as "trigger" or "group:trigger"; "" if it is for all.
func (e *Event) ReplayedFor() string {
	if len(e.Extensions) == 0 {
		return ""
	}
	if id, _ := e.Extensions[ExtensionReplayID].(string); id == "" {
		return "" // no replay made it
	}
	trigger, _ := e.Extensions[ExtensionReplayTrigger].(string)
	return trigger
}
