package worker

import "iter"

// attempts are those that run, or are about to: a list through them, which costs a job less than a map. The pool's mutex guards it.
type attempts struct {
	first *attempt
	n     int
}

func (l *attempts) add(a *attempt) {
	a.runs, a.next = true, l.first
	if l.first != nil {
		l.first.prev = a
	}
	l.first = a
	l.n++
}

// remove tells whether the attempt was there.
func (l *attempts) remove(a *attempt) bool {
	if !a.runs {
		return false
	}
	if a.prev == nil {
		l.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.runs, a.prev, a.next = false, nil, nil
	l.n--
	return true
}

// all goes through them. The one at hand may be removed.
func (l *attempts) all() iter.Seq[*attempt] {
	return func(yield func(*attempt) bool) {
		for a := l.first; a != nil; {
			next := a.next
			if !yield(a) {
				return
			}
			a = next
		}
	}
}
