package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// exposed is how long before a takeover a state may have been acknowledged by one site and never have come to the other. What is older is
	// there: the proofs see the exposure's age below two seconds before they let a site die.
	exposed = int64(5 * time.Second)
	// nameFollows is how long after a planned switch the public name may still lead to the site that handed over.
	nameFollows = int64(3 * time.Second)
)

const (
	// nothing gave way.
	nothing int64 = -1
	// some older state is there, and nobody has looked yet which: to try each would make the search slow.
	some int64 = -2
)

// happens is what may happen to a register besides the operations of its clients.
type happens string

const (
	givesWay  happens = "gives way"
	comesBack happens = "comes back"
	accounted happens = "all is accounted for"
)

// event is one of these, in a term.
type event struct {
	happens happens
	epoch   int64
}

func (event event) String() string { return string(event.happens) }

// lossy is a register of OneSite.
type lossy struct {
	now int64
	// The term in which it gave way, as long as that matters.
	epoch int64
	// What gave way then, is kept nowhere, and so has to come back.
	owed int64
	// What stood in its place.
	instead int64
	// Nobody has written since.
	untouched bool
}

// losses is what may be lost of a register, and what names it.
type losses struct {
	about *named
	// By epoch: states that the register may have had when the term before ended, or so shortly before that the other site had not heard of
	// what followed.
	older map[int64]map[int64]bool
	// One event after the other.
	events []porcupine.Operation
}

func lossesOf(history *history, register string) losses {
	losses := losses{about: history.about(register), older: map[int64]map[int64]bool{}}
	for _, term := range history.terms {
		if term.Planned {
			continue
		}
		losses.older[term.Epoch] = statesAround(history.registers[register], term)
		back := porcupine.Operation{
			Input: event{comesBack, term.Epoch}, Call: max(term.After, term.Back), Return: history.settled,
		}
		gone := porcupine.Operation{Input: event{givesWay, term.Epoch}, Call: term.After, Return: history.settled}
		// What an unseen term built on a lost version may come back in two steps.
		losses.events = append(losses.events, gone, back, back)
	}
	end := porcupine.Operation{Input: event{happens: accounted}, Call: history.settled, Return: math.MaxInt64}
	losses.events = append(losses.events, end)
	return losses
}

// statesAround are those that the register had, or may have had, since the time of which a takeover may lose: what some operation left or found,
// and no later one was over before that time.
func statesAround(operations []operation, term term) map[int64]bool {
	begin, last := term.After-exposed, int64(-1)
	for _, operation := range operations {
		if operation.Outcome == ok && operation.Return < begin {
			last = max(last, operation.Call)
		}
	}
	states := map[int64]bool{}
	if last < 0 {
		states[absent] = true
	}
	for _, operation := range operations {
		tells := operation.Outcome == ok || operation.Outcome == unknown && operation.Does != get
		if tells && operation.Call <= term.At && operation.ended() >= last {
			states[operation.left()] = true
		}
	}
	return states
}

// model is that of the register.
func (losses losses) model() porcupine.Model {
	step := func(state, input, _ interface{}) []interface{} {
		before := state.(lossy)
		if event, is := input.(event); is {
			return before.meets(event, losses.about)
		}
		var after []interface{}
		operation, older := input.(operation), losses.older[before.epoch]
		for _, known := range before.known(operation, older) {
			could, next := operation.on(known.now)
			if next := known.becomes(next); could && next.mayComeBack(older) {
				after = append(after, next)
			}
		}
		return after
	}
	model := porcupine.NondeterministicModel{
		Init:              func() []interface{} { return []interface{}{lossy{now: absent, owed: nothing}} },
		Step:              step,
		DescribeOperation: func(input, _ interface{}) string { return fmt.Sprint(input) },
		DescribeState:     func(state interface{}) string { return state.(lossy).String() },
	}
	return model.ToModel()
}

// known is the register as an operation may have found it, where nobody had looked before.
func (state lossy) known(operation operation, older map[int64]bool) []lossy {
	if state.now != some || operation.Does == put || operation.Does == remove {
		return []lossy{state}
	}
	var known []lossy
	if operation.Outcome == refused || operation.Outcome == unknown {
		// Whatever it found.
		known = append(known, state)
	}
	found := operation.Expects
	if operation.Does == get {
		found = operation.Read
	}
	if operation.Outcome != refused && older[found] {
		state.now = found
		if state.untouched && state.instead == some {
			state.instead = found
		}
		known = append(known, state)
	}
	return known
}

// becomes is the register after an operation. What can't matter any more is forgotten, so that the search meets the same state again.
func (state lossy) becomes(next int64) lossy {
	state.untouched = state.untouched && next == state.now
	state.now = next
	if state.owed == nothing && next != some {
		return lossy{now: next, owed: nothing}
	}
	return state
}

// mayComeBack says whether what is owed still can: where it can't, nobody would ever be told of it.
func (state lossy) mayComeBack(older map[int64]bool) bool {
	overNothing := state.instead == absent || state.instead == some && older[absent]
	return state.owed == nothing || state.untouched || overNothing
}

func (state lossy) meets(event event, about *named) []interface{} {
	after := []interface{}{state}
	switch event.happens {
	case givesWay:
		if state.owed != nothing || state.now == some {
			return after
		}
		if about.names(state.now) {
			after = append(after, lossy{now: some, epoch: event.epoch, owed: nothing})
		}
		// The ledger says of a delete that one was not done, not which.
		if state.now == absent || !about.names(state.now) {
			after = append(after, lossy{some, event.epoch, state.now, some, true})
		}
	case comesBack:
		stands := state.untouched || state.now == absent
		if state.owed != nothing && state.epoch == event.epoch && stands && about.cameBack {
			partly := state
			partly.now = some
			after = append(after, partly, lossy{now: state.owed, owed: nothing})
		}
	case accounted:
		if state.owed != nothing {
			return nil
		}
	}
	return after
}

// inSwitch says whether a read may have met a site that had just handed over.
func inSwitch(operation operation, terms []term) bool {
	return operation.Does == get && slices.ContainsFunc(terms, func(term term) bool {
		return term.Planned && operation.Call <= term.At+nameFollows && operation.ended() >= term.After
	})
}

func (state lossy) String() string {
	if state.owed == nothing {
		return described(state.now)
	}
	return fmt.Sprintf("%s (%s gave way, and is kept nowhere)", described(state.now), described(state.owed))
}
