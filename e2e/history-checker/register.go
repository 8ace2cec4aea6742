package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// plain is one register in one place: its state is the value that is there, or absent.
var plain = porcupine.Model{
	Init: func() interface{} { return absent },
	Step: func(state, input, _ interface{}) (bool, interface{}) {
		could, next := input.(operation).on(state.(int64))
		return could, next
	},
	DescribeOperation: func(input, _ interface{}) string { return input.(operation).String() },
	DescribeState:     func(state interface{}) string { return described(state.(int64)) },
}

// on says whether the operation could have had its outcome on a register in this state, and the state after it.
func (operation operation) on(state int64) (bool, int64) {
	switch operation.Does {
	case get:
		return operation.Read == state, state
	case put:
		return true, operation.Writes
	case remove:
		return true, absent
	}
	wanted := absent
	if operation.Does == replace {
		wanted = operation.Expects
	}
	switch {
	case operation.Outcome == refused:
		return state != wanted, state
	case state == wanted:
		return true, operation.Writes
	}
	// One of which nothing is known may have been refused, too.
	return operation.Outcome == unknown, state
}

// left is the state after it, where it was done.
func (operation operation) left() int64 {
	if operation.Does == get {
		return operation.Read
	}
	return operation.Writes
}

func (operation operation) String() string {
	var does string
	switch operation.Does {
	case get:
		return "get → " + described(operation.Read)
	case put:
		does = fmt.Sprintf("put %d", operation.Writes)
	case remove:
		does = "delete"
	case create:
		does = fmt.Sprintf("create %d", operation.Writes)
	case replace:
		does = fmt.Sprintf("replace %d by %d", operation.Expects, operation.Writes)
	}
	if operation.Outcome != ok {
		does += ": " + string(operation.Outcome)
	}
	return does
}

func described(state int64) string {
	switch state {
	case absent:
		return "nothing"
	case some:
		return "something older"
	}
	return fmt.Sprint(state)
}

// effective are the operations that say something of the register: those that failed do not, nor reads of which nothing is known, nor
// writes of which nothing is known where nobody saw a trace of them.
func effective(operations []operation) []operation {
	var effective []operation
	traced := traces(operations)
	for _, operation := range operations {
		silent := operation.Outcome == failed || operation.Outcome == unknown && !traced(operation)
		if !silent {
			effective = append(effective, operation)
		}
	}
	return effective
}

// traces tells whether anybody may have seen an unknown operation's effect. A value is unique, so who saw it read it or replaced it; a refusal
// or an empty register could come of any of them.
func traces(operations []operation) func(operation) bool {
	seen, lastRefusal, lastNothing := map[int64]bool{}, int64(-1), int64(-1)
	for _, operation := range operations {
		end := operation.ended()
		switch {
		case operation.Outcome == refused:
			lastRefusal = max(lastRefusal, end)
		case operation.Does == get && operation.Outcome == ok && operation.Read == absent,
			operation.Does == create && operation.Outcome != failed:
			lastNothing = max(lastNothing, end)
		case operation.Does == get && operation.Outcome == ok:
			seen[operation.Read] = true
		case operation.Does == replace && operation.Outcome != failed:
			seen[operation.Expects] = true
		}
	}
	return func(operation operation) bool {
		switch operation.Does {
		case get:
			return false
		case remove:
			return lastNothing >= operation.Call || lastRefusal >= operation.Call
		}
		return seen[operation.Writes] || lastRefusal >= operation.Call
	}
}

func (operation operation) ended() int64 {
	if operation.Outcome == unknown {
		return math.MaxInt64
	}
	return operation.Return
}

// timed is the operation as Porcupine takes it.
func (operation operation) timed() porcupine.Operation {
	return porcupine.Operation{
		ClientId: operation.Client,
		Input:    operation,
		Call:     operation.Call,
		Return:   operation.ended(),
	}
}
