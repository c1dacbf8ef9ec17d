package config

import (
	"errors"
	"slices"
	"strings"
	"unicode"
)

// check adds what the packages refuse to the faults found so far.
func (l *Loaded) check(faults Faults) Faults {
	unread := make(map[string]bool) // keys that already have a fault, and now a default that nobody asked for
	for _, f := range faults {
		path, _, _ := strings.Cut(f.Text, ":")
		path, _, _ = strings.Cut(path, "[")
		unread[path] = true
	}
	for _, s := range l.Config.sections() {
		for _, err := range split(s.validate()) {
			text, about := s.locate(err.Error())
			if slices.ContainsFunc(about, func(k key) bool { return unread[k.path] }) {
				continue
			}
			faults = append(faults, &Fault{Text: maskAddresses(text), Place: l.places(about), Err: err})
		}
	}
	return faults
}

// split takes joined errors apart; one that wraps others in words of its own is one fault.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if err == nil || !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return slices.DeleteFunc([]error{err}, func(err error) bool { return err == nil })
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, split(one)...)
	}
	return all
}

// locate puts the section's path before what its package says, and finds the keys that it speaks of: the one it begins
// with, or those it mentions.
func (s section) locate(text string) (string, []key) {
	name := s.path[strings.LastIndexByte(s.path, '.')+1:]
	if list, ok := s.list(); ok {
		if strings.HasPrefix(text, name+"[") {
			return strings.TrimSuffix(s.path, name) + text, []key{list}
		}
		return s.path + ": " + strings.TrimPrefix(text, name+": "), []key{list}
	}
	text = strings.TrimPrefix(text, name+": ")
	head := text
	if end := strings.IndexAny(text, ":[ "); end >= 0 {
		head = text[:end]
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' })

	var about, main []key
	begins := false
	for _, k := range keys() {
		inside, ok := strings.CutPrefix(k.path, s.path+".")
		switch {
		case !ok:
		case inside == head && !strings.HasPrefix(text, head+" "):
			return s.path + "." + text, []key{k}
		case slices.Contains(words, k.name()):
			about = append(about, k)
		case inside == s.about:
			main = append(main, k)
		}
		begins = begins || ok && (inside == head || strings.HasPrefix(inside, head+"."))
	}
	if about == nil {
		about = main
	}
	if begins {
		return s.path + "." + text, about
	}
	return s.path + ": " + text, about
}

// list is the section's own key, if it is a list and not made of keys.
func (s section) list() (key, bool) {
	for _, k := range keys() {
		if k.path == s.path {
			return k, true
		}
	}
	return key{}, false
}

// places names those of the keys that somebody set.
func (l *Loaded) places(of []key) string {
	var set []string
	for _, k := range of {
		if from := l.from[k.path]; from != "" && !slices.Contains(set, from) {
			set = append(set, from)
		}
	}
	return strings.Join(set, ", ")
}
