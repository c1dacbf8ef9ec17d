package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// workflows are what the triggers call. Each reads its event and says what it did: the place where yours asks a model, calls tools
// and writes down what came of it.
var workflows = map[string]func(Event) ([]string, error){
	"triage-email":    triageEmail,
	"replan-day":      replanDay,
	"answer-mention":  answerMention,
	"confirm-payment": confirmPayment,
}

func triageEmail(e Event) ([]string, error) {
	mail, err := dataOf[struct {
		From    string `json:"from"`
		Subject string `json:"subject"`
		Text    string `json:"text"`
	}](e)
	if err != nil {
		return nil, err
	}
	folder := "read later"
	switch text := strings.ToLower(mail.Subject + " " + mail.Text); {
	case strings.Contains(text, "unsubscribe"):
		folder = "newsletters"
	case strings.Contains(text, "urgent"), strings.Contains(text, "today"):
		folder = "answer now"
	}
	return []string{"read the mail of " + mail.From, "filed it under: " + folder}, nil
}

// replanDay knows only that something has changed: Google does not say what. It is asked for the changes since the last time.
func replanDay(e Event) ([]string, error) {
	return []string{"ask for the changes in " + e.Source, "plan the day anew"}, nil
}

func answerMention(e Event) ([]string, error) {
	slack, err := dataOf[struct {
		Event struct {
			User    string `json:"user"`
			Channel string `json:"channel"`
			Text    string `json:"text"`
		} `json:"event"`
	}](e)
	if err != nil {
		return nil, err
	}
	m := slack.Event
	words := strings.Fields(m.Text)
	return []string{fmt.Sprintf("read %d words of %s", len(words), m.User), "draft an answer for " + m.Channel}, nil
}

func confirmPayment(e Event) ([]string, error) {
	stripe, err := dataOf[struct {
		Data struct {
			Object struct {
				ID       string `json:"id"`
				Amount   int64  `json:"amount"` // in the currency's smallest unit
				Currency string `json:"currency"`
			} `json:"object"`
		} `json:"data"`
	}](e)
	if err != nil {
		return nil, err
	}
	p := stripe.Data.Object
	return []string{fmt.Sprintf("book %d %s for %s", p.Amount, p.Currency, p.ID), "write the confirmation"}, nil
}

func dataOf[T any](e Event) (T, error) {
	var v T
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return v, fmt.Errorf("the data of event %s does not fit: %w", e.ID, err)
	}
	return v, nil
}
