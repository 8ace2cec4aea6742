package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// exposed is how long before a takeover a state may have been acknowledged by one site and never have come to the other. What is older is
// there: the proofs see the exposure's age below two seconds before they let a site die.
const exposed = int64(5 * time.Second)

// nothing gave way.
const none int64 = -1

// event is what may happen to a register besides the operations of its clients.
type event string

const (
	givesWay  event = "gives way"
	comesBack event = "comes back"
	accounted event = "all is accounted for"
)

// lossy is a register of OneSite.
type lossy struct {
	now int64
	// What gave way and has not come back.
	lost int64
	// Nobody has written since it gave way.
	untouched bool
	// It is named nowhere, so it has to come back.
	owed bool
	// States since shortly before a takeover, in order and separated by blanks: a comparable value. It follows from which operations took
	// effect, hardly from their order, so it costs the search little.
	recent string
}

// withLosses is the model of a register with OneSite; `about` is what names its losses.
func withLosses(about *named, terms []term) porcupine.Model {
	step := func(state, input, _ interface{}) []interface{} {
		before := state.(lossy)
		switch input := input.(type) {
		case event:
			return before.meets(input, about)
		case operation:
			return before.does(input, isExposed(input, terms))
		}
		return nil
	}
	model := porcupine.NondeterministicModel{
		Init:              func() []interface{} { return []interface{}{lossy{now: absent, lost: none}} },
		Step:              step,
		DescribeOperation: func(input, _ interface{}) string { return fmt.Sprint(input) },
		DescribeState:     func(state interface{}) string { return state.(lossy).String() },
	}
	return model.ToModel()
}

func (state lossy) does(operation operation, isExposed bool) []interface{} {
	could, next := operation.on(state.now)
	if !could {
		return nil
	}
	if next != state.now || operation.Does == put {
		if state.untouched && state.owed {
			// It can't come back any more, and nobody would ever be told.
			return nil
		}
		state.untouched = false
	}
	if isExposed {
		state.recent = including(including(state.recent, state.now), next)
	}
	state.now = next
	return []interface{}{state}
}

func (state lossy) meets(event event, about *named) []interface{} {
	after := []interface{}{state}
	switch event {
	case givesWay:
		if state.lost != none {
			return after
		}
		for _, older := range states(state.recent) {
			if older != state.now {
				gone := lossy{now: older, lost: state.now, untouched: true, owed: !about.names(state.now), recent: state.recent}
				after = append(after, gone)
			}
		}
	case comesBack:
		if state.lost == none || !state.untouched {
			return after
		}
		for _, returned := range states(state.recent) {
			back := state
			back.now = returned
			if returned == state.lost {
				back.lost, back.owed, back.untouched = none, false, false
			}
			after = append(after, back)
		}
	case accounted:
		if state.owed {
			return nil
		}
	}
	return after
}

// isExposed says whether an operation may have taken effect so shortly before a takeover that the other site had not heard of it.
func isExposed(operation operation, terms []term) bool {
	return slices.ContainsFunc(terms, func(term term) bool {
		return !term.Planned && operation.Call <= term.At && operation.ended() >= term.After-exposed
	})
}

// losses are the events that the terms bring with them, each a concurrent operation of its own.
func losses(history *history) []porcupine.Operation {
	var losses []porcupine.Operation
	for _, term := range history.terms {
		if term.Planned {
			continue
		}
		back := porcupine.Operation{Input: comesBack, Call: max(term.After, term.Back), Return: history.settled}
		// What an unseen term built on a lost version may come back in two steps.
		losses = append(losses, porcupine.Operation{Input: givesWay, Call: term.After, Return: history.settled}, back, back)
	}
	return append(losses, porcupine.Operation{Input: accounted, Call: history.settled, Return: math.MaxInt64})
}

// inSwitch says whether a read may have met a site that had just handed over.
func inSwitch(operation operation, terms []term) bool {
	return operation.Does == get && slices.ContainsFunc(terms, func(term term) bool {
		return term.Planned && operation.Call <= term.At+nameFollows && operation.ended() >= term.After
	})
}

// nameFollows is how long after a planned switch the public name may still lead to the site that handed over.
const nameFollows = int64(3 * time.Second)

func including(recent string, state int64) string {
	all := states(recent)
	if slices.Contains(all, state) {
		return recent
	}
	all = append(all, state)
	slices.Sort(all)
	words := make([]string, len(all))
	for index, one := range all {
		words[index] = fmt.Sprint(one)
	}
	return strings.Join(words, " ")
}

func states(recent string) []int64 {
	var all []int64
	for _, word := range strings.Fields(recent) {
		var one int64
		if _, err := fmt.Sscan(word, &one); err == nil {
			all = append(all, one)
		}
	}
	return all
}

func (state lossy) String() string {
	text := described(state.now)
	if state.lost != none {
		text += fmt.Sprintf(" (%s gave way)", described(state.lost))
	}
	if state.owed {
		text += " which nothing names"
	}
	return text
}
