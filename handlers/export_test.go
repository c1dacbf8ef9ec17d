package handlers

import "time"

// WaitForLastWord is how long the server's word for a message is waited for.
func (h *Email) WaitForLastWord(d time.Duration) { h.lastWord = d }
